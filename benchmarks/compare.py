"""Runs the same node files on this project and on dora-rs, in turn, and prints a comparison.

    python benchmarks/compare.py [--quick] [--only roundtrip,idle] [--repetitions 3] [--json FILE]

The exit code is 0 if all our own numbers could be measured, even if targets are missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measure import report, systems
from measure.dataflow import MeasurementFailed
from measure.scenarios import Effort, Scenario, scenarios
from measure.systems import System

DORA_RS_FOLDER = Path(__file__).parent / "out" / "dora-rs"

Results = dict[str, dict[str, dict[str, list[float]]]]


@dataclass(frozen=True)
class Failure:
    """A scenario that failed on one system."""

    scenario: str
    system: str
    reason: str

    def __str__(self) -> str:
        return f"{self.scenario} on {self.system}: {self.reason}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, shorter, once")
    parser.add_argument(
        "--only", default="", help="comma-separated beginnings of scenario names: roundtrip,idle"
    )
    parser.add_argument("--repetitions", type=int, help="default 3, with --quick 1")
    parser.add_argument("--json", type=Path, help="write every value into this file")
    parser.add_argument("--systems", default="ours,dora-rs,tuned", help="which of them to run")
    parser.add_argument("--dora-rs", type=Path, default=DORA_RS_FOLDER, help="its environment")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    effort = Effort(seconds=0.4, quick=True) if options.quick else Effort()
    beginnings = tuple(options.only.split(",")) if options.only else ("",)
    measured = [one for one in scenarios(effort) if one.name.startswith(beginnings)]
    if not measured:
        names = sorted({one.name.split()[0] for one in scenarios(effort)})
        raise SystemExit(f"--only {options.only}: unknown scenario; try {', '.join(names)}")
    chosen = _systems(options.systems.split(","), options.dora_rs)
    repetitions = options.repetitions or (1 if options.quick else 3)
    results: Results = {}
    failures: list[Failure] = []
    for repetition in range(repetitions):
        for scenario in measured:
            # Each repetition begins with another system, so that none always follows the same one.
            turn = repetition % len(chosen)
            for system in chosen[turn:] + chosen[:turn]:
                failures += _measure(scenario, system, results, f"{repetition + 1}/{repetitions}")
    print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    print(f"medians [range] of {repetitions} repetitions, taken in turn\n")
    print(report.table(measured, results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    for failure in failures:
        print(f"could not be measured: {failure}", file=sys.stderr)
    # Failures of dora-rs, which sometimes hangs with 50 nodes, do not change the exit code.
    return 1 if any(failure.system == "ours" for failure in failures) else 0


def _systems(names: list[str], folder: Path) -> list[System]:
    found = {"ours": systems.ours()}
    if {"dora-rs", "tuned"} & set(names):
        found |= dict(zip(("dora-rs", "tuned"), systems.dora_rs(folder), strict=True))
    return [found[name] for name in names]


def _measure(scenario: Scenario, system: System, results: Results, turn: str) -> list[Failure]:
    """Measure once and add the values to `results`; return failures."""
    if system.name == "tuned" and not scenario.tuned:
        return []
    begun = time.monotonic()
    try:
        numbers = scenario.measure(system)
    except (MeasurementFailed, RuntimeError, KeyError, TypeError) as error:
        print(f"[{turn}] {scenario.name} {system.name}: failed: {error}", flush=True)
        return [Failure(scenario.name, system.name, str(error))]
    for number, value in numbers.items():
        series = results.setdefault(scenario.name, {}).setdefault(number, {})
        series.setdefault(system.name, []).append(value)
    shown = ", ".join(f"{number} {value:.4g}" for number, value in numbers.items())
    spent = time.monotonic() - begun
    print(f"[{turn}] {scenario.name} {system.name}: {shown} ({spent:.1f} s)", flush=True)
    return []


if __name__ == "__main__":
    sys.exit(main())
