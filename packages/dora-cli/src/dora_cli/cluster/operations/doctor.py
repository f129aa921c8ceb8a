"""`dora cluster doctor`: every machine, and every pair of machines, as a matrix."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from dora_cli import output
from dora_cli.clock_offset import show_offset
from dora_cli.cluster.coordinator import local as coordinator_here
from dora_cli.cluster.coordinator import service as coordinator_service
from dora_cli.cluster.decisions.daemon_argv import ssh_name
from dora_cli.cluster.decisions.health import ailments, token_digest
from dora_cli.cluster.decisions.preflight import Facts, NotReady, require_ready, warnings
from dora_cli.cluster.machines.daemon_service import Systemd
from dora_cli.cluster.machines.parallel import (
    MOST_AT_ONCE,
    OnMachine,
    Say,
    on_machines,
    target_of,
    without_name,
)
from dora_cli.ssh import SudoUnavailable, connect
from dora_config import DoraError
from dora_config.cluster.models import Cluster, Machine
from dora_config.protocol.control import ClusterReport
from dora_config.protocol.links import FIRST_PORT, LAST_PORT

PORTS = LAST_PORT - FIRST_PORT + 1
ANSWERING = 8.0
"""Seconds for which a machine answers the others."""
MOST_LATENCY = 0.1
MOST_CLOCK_DIFFERENCE = 0.005


@dataclass(frozen=True, slots=True)
class Examined:
    """One machine."""

    facts: Facts
    coordinator: dict[str, Any] | None
    """Whether it reaches the coordinator; None: there is none yet."""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What only some commands need."""


@dataclass(slots=True)
class Report:
    """What is wrong, and what to do about it."""

    repairs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is wrong for some commands only, and no failure."""

    def add(self, subject: str, text: str) -> None:
        self.repairs.append(f"{subject}: {text}")


def examine(cluster: Cluster) -> bool:
    """Look at everything and print it; whether all is well."""
    report = Report()
    daemons, problem = _ask_coordinator(cluster, report)
    token = coordinator_here.where(cluster).token

    def work(on: OnMachine, say: Say) -> Examined:
        return _examine(on, say, daemons, token)

    done = on_machines(cluster, "Looking at {name}", work)
    found = {one.machine.id: one.result for one in done if one.result is not None}
    for one in done:
        if one.problem is not None:
            report.add(ssh_name(one.machine), one.problem)
    _machine_table(cluster, found, report)
    if daemons is None:
        output.write(problem or f"Coordinator: none answers at {coordinator_here.where(cluster)}")
        if not problem and (repair := coordinator_service.repair(cluster)) is not None:
            report.add("coordinator", repair)
    else:
        there = coordinator_here.connected(daemons)
        output.write(f"Coordinator: {coordinator_here.where(cluster)}, {len(there)} connected")
    reachable = [one.machine for one in done if one.ok]
    if len(reachable) > 1:
        _pairs(cluster, reachable, found, report)
    for line in report.repairs:
        output.write(f"- {line}")
    for note in report.notes:
        output.write(f"note: {note}")
    return not report.repairs


def _ask_coordinator(cluster: Cluster, report: Report) -> tuple[ClusterReport | None, str]:
    """Its report, or None and what to print instead of a count."""
    try:
        return coordinator_here.report(cluster), ""
    except DoraError as problem:  # another token, another version
        report.add("coordinator", str(problem))
        return None, f"Coordinator: {coordinator_here.where(cluster)}, refuses this account"


def _examine(on: OnMachine, say: Say, daemons: ClusterReport | None, token: str | None) -> Examined:
    facts = on.facts()
    problems = list(warnings(facts))
    notes: list[str] = []
    try:
        require_ready(facts, on.machine)
    except NotReady as problem:
        problems.append(str(problem))
    health = on.health(facts)
    if not facts.user_service:
        try:
            on.link.run(["true"], sudo=True)
            if facts.service:
                given = on.link.read(Systemd(on, facts, user=False).token, sudo=True) or b""
                health = replace(health, token=token_digest(given.decode(errors="replace")))
        except SudoUnavailable as problem:
            (problems if facts.service else notes).append(
                without_name(str(problem), ssh_name(on.machine))
            )
    problems += ailments(on.cluster, on.machine, facts, health, daemons, token)
    found = Examined(facts, None, tuple(problems), tuple(notes))
    if daemons is None:
        return found
    say("looking for the coordinator")
    address = on.cluster.coordinator
    reached = on.ask("reach", host=address.addr, port=address.port)
    return replace(found, coordinator=reached)


def _machine_table(cluster: Cluster, found: dict[str, Examined], report: Report) -> None:
    columns = ("MACHINE", "SSH", "PYTHON", "DISK", "MEMORY", "CLOCK", "DAEMON", "COORDINATOR")
    rows = []
    for machine in cluster.machines:
        one = found.get(machine.id)
        if one is None:
            rows.append((machine.id, "FAILED", *(["-"] * 6)))
            continue
        facts = one.facts
        for problem in one.problems:
            report.add(ssh_name(machine), problem)
        report.notes += [
            f"{ssh_name(machine)}: `dora cluster install` would fail: {note}" for note in one.notes
        ]
        rows.append(
            (
                machine.id,
                "OK",
                facts.python,
                f"{facts.free >> 30} GiB",
                f"{facts.memory >> 20} MiB",
                show_offset(facts.clock),
                f"process {facts.daemon.pid}" if facts.daemon else "-",
                _coordinator_cell(cluster, machine, one, report),
            )
        )
    output.table(columns, rows)


def _coordinator_cell(cluster: Cluster, machine: Machine, one: Examined, report: Report) -> str:
    if one.coordinator is None:
        return "-"
    if one.coordinator["reached"]:
        return f"{one.coordinator['seconds'] * 1000:.1f} ms"
    address = cluster.coordinator
    report.add(
        ssh_name(machine),
        f"cannot reach the coordinator at {address.addr} port {address.port}: "
        f"{one.coordinator['reason']}; open that port on the coordinator's machine",
    )
    return "FAILED"


# ------------------------------------------------------------------------------ every pair


def _pairs(
    cluster: Cluster, machines: Sequence[Machine], found: dict[str, Examined], report: Report
) -> None:
    with ExitStack() as stack:
        links = _connect_all(cluster, machines, stack, report)
        machines = [one for one in machines if one.id in links]
        if len(machines) < 2:
            return
        answering = {one.id: _Answering(links[one.id]) for one in machines}
        try:
            pings = _all_pings(machines, links, answering, found)
        finally:
            for one in answering.values():
                one.end()
    rows = []
    for source in machines:
        cells = [
            "-" if source is target else _cell(source, target, pings, answering, report)
            for target in machines
        ]
        rows.append((source.id, *cells))
    output.write("Data links, from each machine (row) to each other: round trip, clock difference")
    output.table(("", *(one.id for one in machines)), rows)


def _connect_all(
    cluster: Cluster, machines: Sequence[Machine], stack: ExitStack, report: Report
) -> dict[str, OnMachine]:
    """A connection to each at once, until ``stack`` is left; those without one are reported."""

    def open_one(machine: Machine) -> OnMachine | DoraError:
        try:
            return OnMachine(cluster, machine, stack.enter_context(connect(target_of(machine))))
        except DoraError as error:
            return error

    links: dict[str, OnMachine] = {}
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        for machine, link in zip(machines, pool.map(open_one, machines), strict=True):
            if isinstance(link, OnMachine):
                links[machine.id] = link
            else:
                name = ssh_name(machine)
                report.add(name, f"not in the table of links: {without_name(str(link), name)}")
    return links


class _Answering:
    """A machine that answers pings, until ``end``."""

    def __init__(self, on: OnMachine) -> None:
        self._on = on
        self._said = b""
        self._changed = threading.Event()
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        first = self._on.machine.zenoh_port or FIRST_PORT
        try:
            self._on.ask_live(
                "answer",
                self._take,
                ports=[first, min(first + PORTS - 1, 65535)],
                seconds=ANSWERING,
            )
        except DoraError as error:
            self.problem = str(error)
        self._changed.set()

    def _take(self, data: bytes) -> None:
        self._said += data
        if b"\n" in self._said:
            self._changed.set()

    def port(self) -> int | None:
        """Where it answers, None when it does not."""
        self._changed.wait(ANSWERING)
        try:
            return int(json.loads(self._said.partition(b"\n")[0])["port"])
        except (ValueError, KeyError, TypeError):
            return None

    def end(self) -> None:
        self._on.link.close()
        self._thread.join(5)


def _all_pings(
    machines: Sequence[Machine],
    links: dict[str, OnMachine],
    answering: dict[str, _Answering],
    found: dict[str, Examined],
) -> dict[str, dict[str, Any]]:
    targets = [
        (one.id, one.zenoh_addr or found[one.id].facts.address or one.host, port)
        for one in machines
        if (port := answering[one.id].port()) is not None
    ]

    def pings_of(source: Machine) -> dict[str, Any]:
        others = [target for target in targets if target[0] != source.id]
        try:
            pings: dict[str, Any] = links[source.id].ask("ping", targets=others)["pings"]
        except DoraError as error:
            return {target[0]: {"reason": str(error)} for target in others}
        return pings

    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        return dict(zip((m.id for m in machines), pool.map(pings_of, machines), strict=True))


def _cell(
    source: Machine,
    target: Machine,
    pings: dict[str, dict[str, Any]],
    answering: dict[str, _Answering],
    report: Report,
) -> str:
    pair = f"{source.id} -> {target.id}"
    measured = pings[source.id].get(target.id)
    if measured is None:
        report.add(pair, answering[target.id].problem or "it does not answer on a data port")
        return "FAILED"
    if "reason" in measured:
        first = target.zenoh_port or FIRST_PORT
        report.add(
            pair,
            f"no data link: {measured['reason']}; open ports {first}-{first + PORTS - 1} (TCP) of "
            f"{target.id} for {source.id}, or set zenoh_addr to an address that can be reached",
        )
        return "FAILED"
    seconds, clock = measured["seconds"], measured["clock"]
    if seconds > MOST_LATENCY:
        report.add(pair, f"a round trip takes {seconds * 1000:.0f} ms")
    if abs(clock) > MOST_CLOCK_DIFFERENCE + seconds:
        report.add(pair, f"clocks differ by {_clock_cell(clock)}: have both follow one server")
    return f"{seconds * 1000:.2f} ms {_clock_cell(clock)}"


def _clock_cell(seconds: float) -> str:
    return f"{seconds * 1000:+.2f} ms" if abs(seconds) < 1 else show_offset(seconds)
