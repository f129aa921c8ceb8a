"""The scenarios: dataflows of the files in nodes/, and their numbers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import commands, idle
from .dataflow import BenchNode, run
from .systems import System

KIB, MIB = 1 << 10, 1 << 20
ROUND_TRIP_SIZES = (8, 512, 4 * KIB, 64 * KIB, MIB, 4 * MIB, 16 * MIB, 40 * MIB)
ONE_WAY_SIZES = (8, 512, 4 * KIB, 64 * KIB, MIB, 8 * MIB)
FAN_OUT_SIZES = (512, 64 * KIB, MIB, 8 * MIB)
FAN_OUT = (1, 2, 4, 8)
# Seconds from send to send: ten of them, the default queue, outlast a pause of the consumer.
PACE = dict.fromkeys(ONE_WAY_SIZES, 0.002) | {MIB: 0.01, 8 * MIB: 0.05}
QUICK_SIZES = (8, 64 * KIB, MIB, 8 * MIB, 40 * MIB)

Numbers = dict[str, float]


@dataclass(frozen=True)
class Effort:
    """How long a scenario may take, and which payload sizes it tries."""

    seconds: float = 1.0
    quick: bool = False

    def sizes(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(size for size in sizes if not self.quick or size in QUICK_SIZES)


@dataclass(frozen=True)
class Scenario:
    """A dataflow to run; `units` holds its numbers' names and units, in the report's order."""

    name: str
    units: dict[str, str]
    measure: Callable[[System], Numbers]
    tuned: bool = True  # whether the pool of dora-rs could matter


def size_name(size: int) -> str:
    """Return a payload's size as the report shows it: `8 B`, `64 KiB`, `4 MiB`."""
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def scenarios(effort: Effort) -> Iterator[Scenario]:
    """Yield everything there is to measure."""
    for size in effort.sizes(ROUND_TRIP_SIZES):
        yield Scenario(
            f"roundtrip {size_name(size)}",
            {"p50": "us", "p99": "us"},
            partial(round_trip, size, effort),
        )
    for size in effort.sizes(ONE_WAY_SIZES):
        yield Scenario(
            f"oneway {size_name(size)}",
            {"messages": "1/s", "volume": "GB/s", "lost": "%"},
            partial(one_way, size, effort),
        )
    for size in effort.sizes(ONE_WAY_SIZES):
        yield Scenario(f"paced {size_name(size)}", {"lost": "%"}, partial(paced, size, effort))
    fan_out_units = {
        f"{size_name(size)} {part}": "us"
        for size in effort.sizes(FAN_OUT_SIZES)
        for part in ("send to 1", "each further")
    }
    yield Scenario("fanout", fan_out_units, partial(fan_out, effort))
    for count in (2, 20) if effort.quick else (2, 20, 50):
        yield Scenario(f"startup {count}", {"wall": "s"}, partial(startup, count), tuned=False)
    yield Scenario("idle 10", {"cpu": "% of a core", "memory": "MB"}, idle.ten_nodes, tuned=False)
    for milliseconds in (1, 10):
        yield Scenario(
            f"timer {milliseconds} ms",
            {"p50 error": "us", "p99 error": "us"},
            partial(timer, milliseconds, effort),
            tuned=False,
        )
    yield Scenario(
        "commands",
        commands.UNITS,
        partial(commands.whole_processes, 5 if effort.quick else 15),
        tuned=False,
    )
    yield Scenario("pairs 4", {"messages": "1/s"}, partial(pairs, effort))
    yield Scenario("send 40 MiB", {"first": "ms", "steady": "ms"}, sends_of_40_mib)


def _pair(name: str, size: int, seconds: float, most: int) -> list[BenchNode]:
    settings: dict[str, str | int | float] = {"SIZE": size, "SECONDS": seconds, "MOST": most}
    ping, pong = f"ping{name}", f"pong{name}"
    return [
        BenchNode(ping, "ping.py", {"echo": f"{pong}/pong"}, ("ping",), settings),
        BenchNode(pong, "pong.py", {"ping": f"{ping}/ping"}, ("pong",)),
    ]


def round_trip(size: int, effort: Effort, system: System) -> Numbers:
    """Measure the time from sending a payload to receiving its echo."""
    ping = run(system, _pair("", size, effort.seconds, 5000)).results["ping"]
    _refuse_wrong(ping["wrong"])
    trips = [nanoseconds / 1e3 for nanoseconds in ping["trips_ns"]]
    return {"p50": statistics.median(trips), "p99": percentile(trips, 99)}


def pairs(effort: Effort, system: System) -> Numbers:
    """Messages a second, both ways, of four ping-pong pairs that share two cores."""
    nodes = [node for n in range(4) for node in _pair(str(n), 64, effort.seconds, 10**6)]
    results = run(system, nodes, cores={0, 1}).results
    _refuse_wrong(sum(results[f"ping{n}"]["wrong"] for n in range(4)))
    return {"messages": sum(2 * results[f"ping{n}"]["per_second"] for n in range(4))}


def _stream(sizes: str, seconds: float, pace: float, most: int, queue: int) -> list[BenchNode]:
    settings: dict[str, str | int | float] = {
        "SIZE": sizes,
        "SECONDS": seconds,
        "PACE": pace,
        "MOST": most,
    }
    return [
        BenchNode("source", "source.py", {}, ("data",), settings),
        BenchNode("sink", "sink.py", {"data": {"source": "source/data", "queue_size": queue}}),
    ]


def one_way(size: int, effort: Effort, system: System) -> Numbers:
    """Measure a consumer of a producer that sends as fast as it can."""
    queue = 100 if size <= 64 * KIB else 10
    results = run(system, _stream(str(size), effort.seconds, 0, 10**7, queue)).results
    sent, sink = results["source"]["series"][0]["sent"], results["sink"]
    return {
        "messages": sink["received"] / sink["seconds"],
        "volume": sink["bytes"] / sink["seconds"] / 1e9,
        "lost": _lost(sent, sink),
    }


def paced(size: int, effort: Effort, system: System) -> Numbers:
    """Measure losses of a slow stream, with the default queue."""
    results = run(system, _stream(str(size), effort.seconds, PACE[size], 10**7, 10)).results
    return {"lost": _lost(results["source"]["series"][0]["sent"], results["sink"])}


def fan_out(effort: Effort, system: System) -> Numbers:
    """Measure the time of a send with one consumer and for each further one (of eight)."""
    sizes = effort.sizes(FAN_OUT_SIZES)
    medians: dict[tuple[int, int], float] = {}
    for consumers in FAN_OUT:
        source, sink = _stream(",".join(map(str, sizes)), 3.0, 0.004, 150, 10)
        sinks = [BenchNode(f"sink{n}", sink.file, sink.inputs) for n in range(consumers)]
        series = run(system, [source, *sinks]).results["source"]["series"]
        for size, one in zip(sizes, series, strict=True):
            medians[size, consumers] = statistics.median(one["took_ns"]) / 1e3
    numbers: Numbers = {}
    for size in sizes:
        costs = [medians[size, consumers] for consumers in FAN_OUT]
        numbers[f"{size_name(size)} send to 1"] = costs[0]
        line = statistics.linear_regression(FAN_OUT, costs)
        numbers[f"{size_name(size)} each further"] = float(line.slope)
    return numbers


def startup(count: int, system: System) -> Numbers:
    """Wall time of `dora run` with nodes that connect and end."""
    nodes = [BenchNode(f"node{n}", "ender.py") for n in range(count)]
    return {"wall": run(system, nodes).seconds}


def timer(milliseconds: int, effort: Effort, system: System) -> Numbers:
    """Measure the errors of the intervals between ticks."""
    ticks = round(effort.seconds * (2000 if milliseconds == 1 else 300))
    node = BenchNode(
        "ticks",
        "ticks.py",
        {"tick": f"dora/timer/millis/{milliseconds}"},
        settings={"PERIOD_NS": milliseconds * 1_000_000, "MOST": ticks},
    )
    off = [nanoseconds / 1e3 for nanoseconds in run(system, [node]).results["ticks"]["off_ns"]]
    return {"p50 error": statistics.median(off), "p99 error": percentile(off, 99)}


def sends_of_40_mib(system: System) -> Numbers:
    """Measure the first and the later sends of 40 MiB."""
    results = run(system, _stream(str(40 * MIB), 30.0, 0.3, 8, 10)).results
    took = [nanoseconds / 1e6 for nanoseconds in results["source"]["series"][0]["took_ns"]]
    return {"first": took[0], "steady": statistics.median(took[3:])}


def percentile(values: list[float], percent: int) -> float:
    """Return the value that `percent` of `values` do not exceed."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def _lost(sent: int, sink: dict[str, Any]) -> float:
    return 100 * float(sent - sink["received"]) / sent


def _refuse_wrong(wrong: int) -> None:
    if wrong:
        raise RuntimeError(f"{wrong} echoes differ from the sent payload")
