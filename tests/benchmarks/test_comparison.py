"""Ratios, targets and the table of the comparison."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from measure import systems
from measure.dataflow import RunningDataflow
from measure.report import table
from measure.scenarios import Effort, Scenario, percentile, scenarios, size_name
from measure.systems import System
from measure.targets import TARGETS, Target, further_consumer, ratios
from support.waiting import wait_until


def nothing(_system: System) -> dict[str, float]:
    return {}


def test_ratios_compare_values_of_the_same_repetition() -> None:
    series = {"ours": [1.0, 10.0, 3.0], "dora-rs": [4.0, 20.0, 0.0]}
    assert ratios(series, "dora-rs") == [0.25, 0.5]
    assert ratios(series, "tuned") == []


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target(0.5, ("dora-rs",)), True),
        (Target(0.1, ("dora-rs",)), False),
        (Target(0.5, ("dora-rs", "tuned")), False),
        (Target(2.0, ("dora-rs",), at_most=False), False),
        (Target(3.0), True),
        (Target(0.1, ("another",)), None),
    ],
)
def test_target_is_judged_by_the_median_against_each(target: Target, met: bool | None) -> None:
    series = {"ours": [2.0, 1.0, 9.0], "dora-rs": [8.0, 4.0, 4.0], "tuned": [2.0, 1.0, 9.0]}
    assert target.met_by(series) is met


def test_target_without_a_measurement_is_open() -> None:
    assert Target(1, ("dora-rs",)).met_by({"dora-rs": [1.0]}) is None


def test_further_consumer_may_cost_half_as_much_again() -> None:
    assert further_consumer([10.0], [15.0])
    assert further_consumer([1.0], [6.0])  # within the noise of 5 us
    assert not further_consumer([10.0], [15.1])


def test_every_target_has_a_measured_number() -> None:
    measured = {(one.name, number) for one in scenarios(Effort()) for number in one.units}
    assert set(TARGETS) <= measured


def test_table_shows_medians_spread_ratios_and_verdict() -> None:
    name = "roundtrip 8 B"
    results = {name: {"p50": {"ours": [30.0, 32.0, 40.0], "dora-rs": [300.0, 320.0, 340.0]}}}
    lines = table([Scenario(name, {"p50": "us"}, nothing)], results).splitlines()
    assert lines[2].split("  ")[0] == "roundtrip 8 B: p50"
    assert "32 [30-40]" in lines[2]
    assert "0.1 [0.1-0.118]" in lines[2]
    assert not lines[2].endswith("met")  # dora-rs with a large pool was not measured
    results[name]["p50"]["tuned"] = [300.0, 320.0, 340.0]
    assert table([Scenario(name, {"p50": "us"}, nothing)], results).splitlines()[2].endswith("met")


def test_sizes_and_percentiles() -> None:
    assert [size_name(size) for size in (8, 4096, 40 << 20)] == ["8 B", "4 KiB", "40 MiB"]
    assert percentile([float(n) for n in range(200)], 99) == 198.0
    assert percentile([5.0], 99) == 5.0


def test_nodes_that_outlive_their_dataflow_are_ended(tmp_path: Path) -> None:
    env = os.environ | {"BENCH_RESULT": str(tmp_path / "left.json")}
    wait = [sys.executable, "-c", "input()"]
    with subprocess.Popen(wait, env=env, stdin=subprocess.PIPE) as left:
        environ = Path(f"/proc/{left.pid}/environ")
        wait_until(
            lambda: b"BENCH_RESULT" in environ.read_bytes(), what="the program's environment"
        )
        RunningDataflow(systems.ours(), left, tmp_path, 0.0).end_what_is_left()
        assert left.wait(10) < 0
