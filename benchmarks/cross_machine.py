"""Compares this project and dora-rs across two hosts on one machine.

    python benchmarks/cross_machine.py [--quick] [--only roundtrip,start] [--repetitions 3]

The hosts are network namespaces with a /dev/shm each, so everything between them crosses a network
stack. Needs root. The exit code is 0 if all our own numbers could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from measure import report, systems, zenoh_alone
from measure.dataflow import BenchNode, MeasurementFailed
from measure.fleet import Fleet, fleet
from measure.scenarios import KIB, MIB, percentile, size_name
from measure.systems import System
from measure.targets import Target

DORA_RS_FOLDER = Path(__file__).parent / "out" / "dora-rs"
ROUND_TRIPS = (8, 512, 4 * KIB, 64 * KIB, MIB, 4 * MIB, 8 * MIB)
STREAMS = (64, 4 * KIB, 64 * KIB, MIB)
QUICK = (8, 64, 64 * KIB, MIB, 8 * MIB)
PACE = {64: 0.002, 4 * KIB: 0.002, 64 * KIB: 0.004, MIB: 0.03}

DORA_RS = ("dora-rs",)
TARGETS = {
    **{
        (f"roundtrip {s}", "p50"): [Target(0.75, DORA_RS)]
        for s in ("8 B", "512 B", "4 KiB", "64 KiB")
    },
    **{(f"roundtrip {s}", "p50"): [Target(1 / 3, DORA_RS)] for s in ("1 MiB", "4 MiB", "8 MiB")},
    ("stream 1 MiB", "volume"): [Target(3, DORA_RS, at_most=False)],
    **{(f"paced {size_name(s)}", "lost"): [Target(0)] for s in STREAMS},
    ("recovery", "first message"): [Target(2.0)],
}

Numbers = dict[str, float]


@dataclass(frozen=True)
class Scenario:
    """Something to measure on a fleet; `units` names its numbers."""

    name: str
    units: dict[str, str]
    measure: Callable[[Fleet], Numbers]
    only_ours: bool = False


def scenarios(quick: bool) -> Iterator[Scenario]:
    """Yield everything there is to measure."""
    for size in ROUND_TRIPS:
        if not quick or size in QUICK:
            name = f"roundtrip {size_name(size)}"
            yield Scenario(name, {"p50": "us", "p99": "us"}, partial(round_trip, size))
    for what, secured in (("Zenoh alone with TLS", True), ("Zenoh alone in the clear", False)):
        for size in ROUND_TRIPS:
            if not quick or size in QUICK:
                alone = partial(_zenoh_alone, size, secured)
                units = {"p50": "us", "p99": "us"}
                yield Scenario(f"{what} {size_name(size)}", units, alone, only_ours=True)
        yield Scenario(
            f"{what} stream 1 MiB", {"volume": "GB/s"}, partial(_zenoh_stream, secured),
            only_ours=True,
        )  # fmt: skip
    for size in STREAMS:
        if not quick or size in QUICK:
            units = {"messages": "1/s", "volume": "GB/s", "lost": "%"}
            yield Scenario(f"stream {size_name(size)}", units, partial(stream, size, 0.0))
    for size in STREAMS:
        if not quick or size in QUICK:
            pace = partial(stream, size, PACE[size])
            yield Scenario(f"paced {size_name(size)}", {"lost": "%"}, pace)
    yield Scenario("start", {"first message": "s", "stop": "s"}, start_and_stop)
    # dora-rs does not restart the nodes of a lost machine.
    yield Scenario("recovery", {"first message": "s"}, recovery, only_ours=True)


def round_trip(size: int, made: Fleet) -> Numbers:
    """Measure the time from sending a payload to receiving its echo from the other host."""
    name = f"roundtrip-{size}-{time.monotonic_ns()}"
    settings: dict[str, str | int | float] = {"SIZE": size, "SECONDS": 2.0, "MOST": 3000}
    ping = BenchNode("ping", "ping.py", {"echo": "pong/pong"}, ("ping",), settings)
    pong = BenchNode("pong", "pong.py", {"ping": "ping/ping"}, ("pong",))
    folder = made.start(name, [(0, ping), (1, pong)])
    found = made.results(folder, ["ping"])["ping"]
    made.stop(name)
    if found["wrong"]:
        raise RuntimeError(f"{found['wrong']} echoes differ from the sent payload")
    trips = [nanoseconds / 1e3 for nanoseconds in found["trips_ns"]]
    return {"p50": statistics.median(trips), "p99": percentile(trips, 99)}


def _zenoh_alone(size: int, secured: bool, made: Fleet) -> Numbers:
    """Measure the same round trip with Zenoh alone."""
    return zenoh_alone.round_trip(size, made.hosts, secured=secured)


def _zenoh_stream(secured: bool, made: Fleet) -> Numbers:
    return zenoh_alone.stream(MIB, made.hosts, secured=secured)


def stream(size: int, pace: float, made: Fleet) -> Numbers:
    """Measure the messages from a producer to a consumer on the other host."""
    name = f"stream-{size}-{time.monotonic_ns()}"
    settings: dict[str, str | int | float] = {
        "SIZE": str(size),
        "SECONDS": 2.0,
        "PACE": pace,
        "MOST": 10**7,
    }
    queue = 10 if pace or size >= MIB else 100
    source = BenchNode("source", "source.py", {}, ("data",), settings)
    sink = BenchNode("sink", "sink.py", {"data": {"source": "source/data", "queue_size": queue}})
    folder = made.start(name, [(0, source), (1, sink)])
    found = made.results(folder, ["source", "sink"])
    made.stop(name)
    sent, got = found["source"]["series"][0]["sent"], found["sink"]
    return {
        "messages": got["received"] / got["seconds"],
        "volume": got["bytes"] / got["seconds"] / 1e9,
        "lost": 100 * (sent - got["received"]) / sent,
    }


def _ticking() -> list[tuple[int, BenchNode]]:
    clock = BenchNode("clock", "clock.py", {"tick": "dora/timer/millis/20"}, ("tick",))
    return [(0, clock), (1, BenchNode("witness", "witness.py", {"tick": "clock/tick"}))]


def _lives(folder: Path) -> list[float]:
    try:
        return [float(line) for line in (folder / "witness.json").read_text().split()]
    except FileNotFoundError:
        return []


def start_and_stop(made: Fleet) -> Numbers:
    """Measure `dora start` until the first message on the other host, and `dora stop`."""
    name = f"start-{time.monotonic_ns()}"
    begun = time.monotonic()
    folder = made.start(name, _ticking())
    first = made.wait(lambda: _lives(folder), "message")[0]
    return {"first message": first - begun, "stop": made.stop(name)}


def recovery(made: Fleet) -> Numbers:
    """Kill all processes of the second host; measure from its daemon's start to a message."""
    name = f"recovery-{time.monotonic_ns()}"
    folder = made.start(name, _ticking())
    made.wait(lambda: _lives(folder), "message")
    made.hosts[1].kill_all()
    made.wait(lambda: "Running" not in made.dora("list"), "report of the loss", 60)
    begun = time.monotonic()
    made.start_daemon(1)
    again = made.wait(lambda: len(_lives(folder)) > 1 and _lives(folder)[-1], "message", 60)
    made.stop(name)
    return {"first message": again - begun}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, once")
    parser.add_argument("--only", default="", help="comma-separated beginnings of names")
    parser.add_argument("--repetitions", type=int, help="default 3, with --quick 1")
    parser.add_argument("--json", type=Path, help="write every value into this file")
    parser.add_argument("--systems", default="ours,dora-rs", help="which of them to run")
    parser.add_argument("--dora-rs", type=Path, default=DORA_RS_FOLDER, help="its environment")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    # On SIGTERM, daemons and namespaces are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    beginnings = tuple(options.only.split(",")) if options.only else ("",)
    measured = [one for one in scenarios(options.quick) if one.name.startswith(beginnings)]
    if not measured:
        raise SystemExit(f"--only {options.only}: unknown scenario")
    names = options.systems.split(",")
    chosen = [systems.ours()] if "ours" in names else []
    if "dora-rs" in names:
        chosen.append(systems.dora_rs(options.dora_rs)[0])
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    failures: list[tuple[str, str]] = []
    for _ in range(options.repetitions or (1 if options.quick else 3)):
        for system in chosen:
            failures += _measure_all(system, measured, results)
    print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores\n")
    print(report.table(measured, results, TARGETS))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    for system_name, reason in failures:
        print(f"could not be measured: {system_name}: {reason}", file=sys.stderr)
    return 1 if any(name == "ours" for name, _ in failures) else 0


def _measure_all(
    system: System, measured: list[Scenario], results: dict[str, dict[str, dict[str, list[float]]]]
) -> list[tuple[str, str]]:
    """Measure every scenario on one fleet and add the values to `results`; return failures."""
    failures: list[tuple[str, str]] = []
    chosen = [one for one in measured if system.name == "ours" or not one.only_ours]
    try:
        with fleet(system) as made:
            for scenario in chosen:
                try:
                    numbers: dict[str, Any] = scenario.measure(made)
                except (MeasurementFailed, RuntimeError, KeyError, ZeroDivisionError) as error:
                    print(f"{scenario.name} {system.name}: failed: {error}", flush=True)
                    failures.append((system.name, f"{scenario.name}: {error}"))
                    continue
                shown = ", ".join(f"{number} {value:.4g}" for number, value in numbers.items())
                print(f"{scenario.name} {system.name}: {shown}", flush=True)
                for number, value in numbers.items():
                    if number in scenario.units:
                        series = results.setdefault(scenario.name, {}).setdefault(number, {})
                        series.setdefault(system.name, []).append(value)
    except MeasurementFailed as error:
        failures.append((system.name, str(error)))
    return failures


if __name__ == "__main__":
    sys.exit(main())
