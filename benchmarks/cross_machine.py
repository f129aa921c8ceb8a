"""Compares this project and dora-rs across two hosts on one machine.

    python benchmarks/cross_machine.py [--quick] [--only roundtrip,start] [--repetitions 3]
        [--systems ours,zenoh,relay,dora-rs] [--tables tls,plain,pinned-tls,pinned-plain]

The hosts are network namespaces with a /dev/shm each, so everything between them crosses a network
stack. Needs root. The exit code is 1 if something of ours could not be measured.
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
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from measure import relay_chain, report, systems, zenoh_alone
from measure.dataflow import BenchNode, MeasurementFailed
from measure.fleet import Fleet, fleet
from measure.hosts import Host, two_hosts
from measure.scenarios import KIB, MIB, percentile, size_name
from measure.targets import Target

DORA_RS_FOLDER = Path(__file__).parent / "out" / "dora-rs"
SYSTEMS = ("ours", "zenoh", "relay", "dora-rs")
ROUND_TRIPS = (8, 512, 4 * KIB, 64 * KIB, MIB, 4 * MIB, 8 * MIB)
STREAMS = (64, 4 * KIB, 64 * KIB, MIB)
LOSSLESS = (64 * KIB, MIB)
TOPICS = (64, 4 * KIB)
QUICK = (8, 64, 64 * KIB, MIB, 8 * MIB)
PACE = {64: 0.002, 4 * KIB: 0.002, 64 * KIB: 0.004, MIB: 0.03}
TOPIC_COUNT, TOPIC_PERIOD = 100, 0.005
CPU_WINDOW = 2.0
SPARE_SECONDS = 3.0
"""Until a spare runner and its zygote have imported their modules."""


@dataclass(frozen=True)
class Table:
    """One table: how ours and Zenoh are secured, and whether each host has one core."""

    title: str
    secured: bool
    pinned: bool


TABLES = {
    "tls": Table("links with TLS", secured=True, pinned=False),
    "plain": Table("links: plain", secured=False, pinned=False),
    "pinned-tls": Table("links with TLS, each host on one core", secured=True, pinned=True),
    "pinned-plain": Table("links: plain, each host on one core", secured=False, pinned=True),
}

Targets = dict[tuple[str, str], list[Target]]
_ALONE = ("zenoh",)
_DORA_RS = ("dora-rs",)
_BOTH_WAYS = ("stream 64 B", "stream 4 KiB", "stream 64 KiB", "stream 1 MiB")
_ALWAYS: Targets = {
    **{(f"paced {size_name(s)}", "lost"): [Target(0)] for s in STREAMS},
    **{(f"lossless {size_name(s)}", "lost"): [Target(0)] for s in LOSSLESS},
    **{(f"topics {size_name(s)}", "lost"): [Target(0)] for s in TOPICS},
    **{(f"topics {size_name(s)}", "cpu"): [Target(1, _DORA_RS)] for s in TOPICS},
    ("recovery", "first message"): [Target(2.0)],
}
TLS_TARGETS: Targets = _ALWAYS | {
    ("roundtrip 8 B", "p50"): [Target(1.5, ("relay",))],
    ("roundtrip 64 KiB", "p50"): [Target(1.3, _ALONE)],
    ("roundtrip 1 MiB", "p50"): [Target(1.3, _ALONE)],
    ("roundtrip 4 MiB", "p50"): [Target(1.1, _ALONE)],
    ("roundtrip 8 MiB", "p50"): [Target(1.1, _ALONE)],
    ("stream 1 MiB", "volume"): [Target(0.8, _ALONE, at_most=False)],
    # A put of Zenoh alone waits for the connection, as a producer under backpressure does.
    ("lossless 1 MiB", "volume"): [Target(0.8, _ALONE, at_most=False)],
}
PLAIN_TARGETS: Targets = _ALWAYS | {
    **{(f"roundtrip {size_name(s)}", "p50"): [Target(1, _DORA_RS)] for s in ROUND_TRIPS},
    **{(name, "messages"): [Target(1, _DORA_RS, at_most=False)] for name in _BOTH_WAYS},
}

Numbers = dict[str, float]
Hosts = tuple[Host, Host]
Results = dict[str, dict[str, dict[str, list[float]]]]


@dataclass(frozen=True)
class Scenario:
    """Something to measure; `units` names its numbers."""

    name: str
    units: dict[str, str]
    measure: Callable[[Fleet], Numbers]
    alone: Callable[[Hosts, bool], Numbers] | None = None
    """The same with Zenoh alone."""
    relayed: Callable[[Hosts, bool], Numbers] | None = None
    """The same through the relay chain."""
    only_ours: bool = False
    """Without dora-rs."""


def scenarios(quick: bool) -> Iterator[Scenario]:
    """Yield everything there is to measure."""
    for size in _sizes(ROUND_TRIPS, quick):
        yield Scenario(
            f"roundtrip {size_name(size)}",
            {"p50": "us", "p99": "us"},
            partial(round_trip, size),
            alone=_with_size(zenoh_alone.round_trip, size),
            relayed=_with_size(relay_chain.round_trip, size) if size <= 64 * KIB else None,
        )
    for size in _sizes(STREAMS, quick):
        units = {"messages": "1/s", "volume": "GB/s", "lost": "%", "cpu": "us/message"}
        yield Scenario(
            f"stream {size_name(size)}",
            units,
            partial(stream, size, 0.0),
            alone=_with_size(zenoh_alone.stream, size),
        )
    for size in LOSSLESS:
        yield Scenario(
            f"lossless {size_name(size)}",
            {"messages": "1/s", "volume": "GB/s", "lost": "%", "cpu": "us/message"},
            partial(stream, size, 0.0, policy="backpressure"),
            alone=_with_size(zenoh_alone.stream, size),
            only_ours=True,
        )
    for size in _sizes(STREAMS, quick):
        pace = partial(stream, size, PACE[size])
        yield Scenario(f"paced {size_name(size)}", {"lost": "%"}, pace)
    for size in TOPICS:
        units = {"messages": "1/s", "lost": "%", "cpu": "us/message"}
        yield Scenario(f"topics {size_name(size)}", units, partial(topics, size))
    units = {"first message": "s", "stop": "s"}
    yield Scenario("start", units, start_and_stop)
    yield Scenario("start with spare runners", units, warm_start, only_ours=True)
    # dora-rs does not restart the nodes of a lost machine.
    yield Scenario("recovery", {"first message": "s"}, recovery, only_ours=True)


def _sizes(sizes: tuple[int, ...], quick: bool) -> list[int]:
    return [size for size in sizes if not quick or size in QUICK]


def _with_size(measure: Callable[..., Numbers], size: int) -> Callable[[Hosts, bool], Numbers]:
    return lambda hosts, secured: measure(size, hosts, secured=secured)


def round_trip(size: int, made: Fleet) -> Numbers:
    """Time from sending a payload to holding its echo from the other host."""
    name = f"roundtrip-{size}-{time.monotonic_ns()}"
    settings: dict[str, str | int | float] = {"SIZE": size, "SECONDS": 2.0, "MOST": 3000}
    ping = BenchNode("ping", "ping.py", {"echo": "pong/pong"}, ("ping",), settings)
    pong = BenchNode("pong", "pong.py", {"ping": "ping/ping"}, ("pong",))
    folder = made.start(name, [(0, ping), (1, pong)])
    found = made.results(folder, ["ping"])["ping"]
    made.stop(name)
    if found["wrong"]:
        raise RuntimeError(f"{found['wrong']} echoes did not hold what was sent")
    trips = [nanoseconds / 1e3 for nanoseconds in found["trips_ns"]]
    return {"p50": statistics.median(trips), "p99": percentile(trips, 99)}


def stream(size: int, pace: float, made: Fleet, *, policy: str = "drop_oldest") -> Numbers:
    """What a consumer receives from a producer on the other host.

    Without a pace and under drop_oldest, the producer uses a core for messages that are dropped.
    """
    settings: dict[str, str | int | float] = {
        "SIZE": str(size),
        "SECONDS": 2.0 + (0.0 if pace else CPU_WINDOW),
        "PACE": pace,
        "MOST": 10**7,
    }
    queue = 10 if pace or size >= MIB else 100
    source = BenchNode("source", "source.py", {}, ("data",), settings)
    data = {"source": "source/data", "queue_size": queue, "queue_policy": policy}
    sink = BenchNode("sink", "sink.py", {"data": data})
    return _one_way(f"stream-{size}", source, sink, made, cpu=not pace)


def topics(size: int, made: Fleet) -> Numbers:
    """Many small outputs at a steady rate, all read by one node on the other host."""
    settings: dict[str, str | int | float] = {
        "SIZE": size,
        "SECONDS": 2.0 + CPU_WINDOW,
        "PACE": TOPIC_PERIOD,
        "TOPICS": TOPIC_COUNT,
    }
    names = tuple(f"topic{number}" for number in range(TOPIC_COUNT))
    source = BenchNode("source", "topics.py", {}, names, settings)
    inputs = {name: {"source": f"source/{name}", "queue_size": 20} for name in names}
    return _one_way(f"topics-{size}", source, BenchNode("sink", "sink.py", inputs), made, cpu=True)


def _one_way(name: str, source: BenchNode, sink: BenchNode, made: Fleet, *, cpu: bool) -> Numbers:
    name = f"{name}-{time.monotonic_ns()}"
    folder = made.start(name, [(0, source), (1, sink)])
    used = _cpu_of(made, folder / "source.started") if cpu else 0.0
    found = made.results(folder, ["source", "sink"])
    made.stop(name)
    sent, got = found["source"]["series"][0]["sent"], found["sink"]
    rate = got["received"] / got["seconds"]
    return {
        "messages": rate,
        "volume": got["bytes"] / got["seconds"] / 1e9,
        "lost": 100 * (sent - got["received"]) / sent,
        "cpu": 1e6 * used / rate,
    }


def _cpu_of(made: Fleet, started: Path) -> float:
    """Return the cores that all processes of both hosts use while messages flow."""
    made.wait(started.exists, "first messages")
    time.sleep(0.3)
    before, begun = _cpu_seconds(made), time.monotonic()
    time.sleep(CPU_WINDOW)
    return (_cpu_seconds(made) - before) / (time.monotonic() - begun)


def _cpu_seconds(made: Fleet) -> float:
    return sum(host.cpu_seconds() for host in made.hosts)


def _ticking() -> list[tuple[int, BenchNode]]:
    clock = BenchNode("clock", "clock.py", {"tick": "dora/timer/millis/20"}, ("tick",))
    return [(0, clock), (1, BenchNode("witness", "witness.py", {"tick": "clock/tick"}))]


def _lives(folder: Path) -> list[float]:
    try:
        return [float(line) for line in (folder / "witness.json").read_text().split()]
    except FileNotFoundError:
        return []


def _spare_runners(made: Fleet) -> list[psutil.Process]:
    found = []
    for pid in (pid for host in made.hosts for pid in host.pids()):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if "--spare" in process.cmdline():
                found.append(process)
    return found


def start_and_stop(made: Fleet) -> Numbers:
    """From `dora start` to the first message on the other host, and what `dora stop` takes.

    Daemons have no spare runners, as in the ten seconds after the last start.
    """
    for process in _spare_runners(made):
        process.kill()
    return _start_and_stop(made)


def warm_start(made: Fleet) -> Numbers:
    """The same with a spare runner on each host."""
    made.wait(lambda: len(_spare_runners(made)) == len(made.hosts), "spare runners")
    time.sleep(SPARE_SECONDS)
    return _start_and_stop(made)


def _start_and_stop(made: Fleet) -> Numbers:
    name = f"start-{time.monotonic_ns()}"
    begun = time.monotonic()
    folder = made.start(name, _ticking())
    first = made.wait(lambda: _lives(folder), "message")[0]
    return {"first message": first - begun, "stop": made.stop(name)}


def recovery(made: Fleet) -> Numbers:
    """Everything on the second host is killed: from its daemon's new start to the first message."""
    name = f"recovery-{time.monotonic_ns()}"
    folder = made.start(name, _ticking())
    made.wait(lambda: _lives(folder), "message")
    made.hosts[1].kill_all()
    made.wait(lambda: "Running" not in made.dora("list"), "news of the loss", 60)
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
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="which of them to run")
    parser.add_argument("--tables", default=",".join(TABLES), help="which of them to print")
    parser.add_argument(
        "--dora-rs", type=Path, default=DORA_RS_FOLDER, help="the environment of dora-rs"
    )
    return parser.parse_args()


class Run:
    """All measurements of one run, by table."""

    def __init__(self, chosen: list[str], measured: list[Scenario], dora_rs: Path) -> None:
        self.chosen = chosen
        self.measured = measured
        self.results: dict[str, Results] = {}
        self.failures: list[tuple[str, str]] = []
        self._dora_rs = systems.dora_rs(dora_rs)[0] if "dora-rs" in chosen else None

    def repeat(self, tables: list[str]) -> None:
        """Measure every scenario once for each system and table."""
        for name in tables:
            for system in self.chosen:
                # dora-rs is the same in both tables of the same hosts.
                twin = name.replace("plain", "tls")
                if system == "dora-rs" and twin != name and twin in tables:
                    self._copy_dora_rs(name, twin)
                else:
                    self._measure(name, TABLES[name], system)

    def _copy_dora_rs(self, name: str, twin: str) -> None:
        for scenario, numbers in self.results.get(twin, {}).items():
            for number, by_system in numbers.items():
                if "dora-rs" in by_system:
                    self._series(name, scenario, number)["dora-rs"] = by_system["dora-rs"]

    def _series(self, table: str, scenario: str, number: str) -> dict[str, list[float]]:
        by_scenario = self.results.setdefault(table, {})
        return by_scenario.setdefault(scenario, {}).setdefault(number, {})

    def _measure(self, name: str, table: Table, system: str) -> None:
        try:
            if system in ("zenoh", "relay"):
                with two_hosts(pinned=table.pinned) as hosts:
                    for one in self.measured:
                        measure = one.alone if system == "zenoh" else one.relayed
                        if measure is not None:
                            self._one(name, system, one, partial(measure, hosts, table.secured))
                return
            ours = system == "ours"
            options = ("--links", "plain") if ours and not table.secured else ()
            running = systems.ours() if ours else self._dora_rs
            assert running is not None
            with fleet(running, pinned=table.pinned, daemon_options=options) as made:
                for one in self.measured:
                    if ours or not one.only_ours:
                        self._one(name, system, one, partial(one.measure, made))
        except MeasurementFailed as error:
            self.failures.append((system, str(error)))

    def _one(
        self, table: str, system: str, scenario: Scenario, measure: Callable[[], Numbers]
    ) -> None:
        try:
            numbers = measure()
        except (MeasurementFailed, RuntimeError, KeyError, ZeroDivisionError) as error:
            print(f"{table}: {scenario.name} {system}: failed: {error}", flush=True)
            self.failures.append((system, f"{scenario.name}: {error}"))
            return
        shown = ", ".join(f"{number} {value:.4g}" for number, value in numbers.items())
        print(f"{table}: {scenario.name} {system}: {shown}", flush=True)
        for number, value in numbers.items():
            if number in scenario.units:
                self._series(table, scenario.name, number).setdefault(system, []).append(value)


def main() -> int:
    options = arguments()
    # An early end must not leave daemons and namespaces behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    beginnings = tuple(options.only.split(",")) if options.only else ("",)
    measured = [one for one in scenarios(options.quick) if one.name.startswith(beginnings)]
    if not measured:
        raise SystemExit(f"--only {options.only}: there is no such scenario")
    chosen, tables = options.systems.split(","), options.tables.split(",")
    for given, known in ((chosen, SYSTEMS), (tables, tuple(TABLES))):
        if unknown := set(given) - set(known):
            raise SystemExit(f"unknown: {', '.join(unknown)}; expected {', '.join(known)}")
    run = Run(chosen, measured, options.dora_rs)
    for _ in range(options.repetitions or (1 if options.quick else 3)):
        run.repeat(tables)
    print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    others = [name for name in SYSTEMS if name != "ours" and name in chosen]
    for name in tables:
        targets = TLS_TARGETS if TABLES[name].secured else PLAIN_TARGETS
        print(f"\n{TABLES[name].title}\n")
        print(report.table(measured, run.results.get(name, {}), targets, others))
    if options.json:
        options.json.write_text(json.dumps(run.results, indent=1))
    for system_name, reason in run.failures:
        print(f"could not be measured: {system_name}: {reason}", file=sys.stderr)
    return 1 if any(name == "ours" for name, _ in run.failures) else 0


if __name__ == "__main__":
    sys.exit(main())
