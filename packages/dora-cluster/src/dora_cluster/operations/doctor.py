"""`dora doctor CLUSTER`: checks the coordinator, every machine and every pair of machines."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

from dora_cli import output
from dora_cli.coordinator.errors import AccessDenied, CoordinatorBusy
from dora_cli.coordinator.machine_warnings import plain_warnings, show_offset
from dora_cluster.coordinator import queries
from dora_cluster.coordinator.service import service_remedy
from dora_cluster.decisions.preflight import (
    MachineFacts,
    NotReady,
    find_problems,
    require_ready,
    warnings,
)
from dora_cluster.errors import RemoteCommandFailed, SudoUnavailable
from dora_cluster.machines.daemon_service import DaemonService
from dora_cluster.machines.port_listener import PortListener
from dora_cluster.machines.remote_machine import (
    Connections,
    MachineOutcome,
    RemoteMachine,
    Report,
    in_parallel,
    on_machines,
)
from dora_cluster.operations.steps import Findings
from dora_cluster.remote_program.existing_daemons import fingerprint
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError
from dora_config.protocol.control import ClusterReport
from dora_config.protocol.links import FIRST_PORT, LAST_PORT

START_TIMEOUT = 8.0
"""Seconds in which all machines must have opened a port for pings."""
MAX_LATENCY = 0.1
"""Seconds of a round trip between machines above which `dora doctor` warns."""


def measure_pairs(cluster: Cluster, facts: Mapping[str, MachineFacts], findings: Findings) -> None:
    """Measure all pairs of the machines that have ``facts``, and print them as a matrix."""
    machines = [one for one in cluster.machines if one.id in facts]
    if len(machines) < 2:
        return
    with closing(Connections()) as connections:
        machines = _connect(connections, machines, findings)
        if len(machines) < 2:
            return
        secret = secrets.token_hex(16)
        with ExitStack() as stack:
            listeners = {}
            for one in machines:
                remote = RemoteMachine(cluster, one, stack.enter_context(connections.open(one)))
                listeners[one.id] = PortListener(remote, data_ports(one), secret)
                stack.callback(listeners[one.id].end)
            pings = _ping_all(connections, listeners, facts, secret)
    rows = []
    for source in machines:
        cells = [
            "-" if source is target else _cell(source, target, pings, listeners, findings)
            for target in machines
        ]
        rows.append((source.id, *cells))
    output.write("Data links, from each machine (row) to each other: round trip, clock difference")
    output.table(("", *(one.id for one in machines)), rows)


def _connect(
    connections: Connections, machines: Sequence[Machine], findings: Findings
) -> list[Machine]:
    """Connect to all machines; return those that were reached, others become findings."""
    connections.connect(machines)
    reached = []
    for machine in machines:
        problem = connections.problem(machine)
        if problem is None:
            reached.append(machine)
        else:
            name = machine.label
            reason = str(problem).removeprefix(f"{name}: ")
            findings.add(name, f"missing in the table of data links: {reason}")
    return reached


Pings = Mapping[str, Mapping[str, Any]]
"""Answers of ``ping`` by source and target."""


def _ping_all(
    connections: Connections,
    listeners: Mapping[str, PortListener],
    facts: Mapping[str, MachineFacts],
    secret: str,
) -> Pings:
    deadline = time.monotonic() + START_TIMEOUT
    targets = []
    for name, listener in listeners.items():
        port = listener.port(max(0.0, deadline - time.monotonic()))
        if port is not None:
            one = listener.remote.machine
            targets.append((name, one.zenoh_addr or facts[name].address or one.host, port))

    def ping_from(source: str) -> dict[str, Any]:
        others = [target for target in targets if target[0] != source]
        try:
            found = listeners[source].remote.call("network.ping", targets=others, secret=secret)
        except DoraError as error:
            return {target[0]: {"reason": str(error)} for target in others}
        pings: dict[str, Any] = found["pings"]
        return pings

    results = in_parallel(connections, list(listeners), ping_from)
    return dict(zip(listeners, results, strict=True))


def data_ports(machine: Machine) -> tuple[int, int]:
    """Return the first and the last port at which links of the machine may listen."""
    first = machine.zenoh_port or FIRST_PORT
    return first, min(first + LAST_PORT - FIRST_PORT, 65535)


def assess_pair(
    source: Machine, target: Machine, ping: Mapping[str, Any]
) -> tuple[str, str | None]:
    """Return the cell of the table for an answer of ``ping``, and the problem if there is one."""
    if "reason" in ping:
        first, last = data_ports(target)
        return "FAILED", (
            f"no data link: {ping['reason']}; open ports {first}-{last} (TCP) of {target.id} for "
            f"{source.id}, or set zenoh_addr to a reachable address"
        )
    milliseconds = ping["seconds"] * 1000
    slow = f"a round trip takes {milliseconds:.0f} ms; check the network"
    cell = f"{milliseconds:.2f} ms {_clock(ping['clock'])}"
    return cell, slow if ping["seconds"] > MAX_LATENCY else None


def _clock(seconds: float) -> str:
    return f"{seconds * 1000:+.2f} ms" if abs(seconds) < 1 else show_offset(seconds)


def _cell(
    source: Machine,
    target: Machine,
    pings: Pings,
    listeners: Mapping[str, PortListener],
    findings: Findings,
) -> str:
    pair = f"{source.id} -> {target.id}"
    ping = pings[source.id].get(target.id)
    if ping is None:
        late = f"{target.id} did not open a data port within {START_TIMEOUT:g} s"
        reason = listeners[target.id].problem or late
        findings.add(pair, reason)
        return "FAILED"
    cell, problem = assess_pair(source, target, ping)
    if problem is not None:
        findings.add(pair, problem)
    return cell


@dataclass(frozen=True, slots=True)
class Examined:
    """The result of one machine."""

    facts: MachineFacts
    coordinator: dict[str, Any] | None
    """Whether the machine reaches the coordinator; None: without a coordinator."""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def diagnose(cluster: Cluster) -> bool:
    """Check everything and print the results; return whether there are no problems."""
    findings = Findings()
    report, refusal = _report_of_coordinator(cluster, findings)
    address = queries.endpoint_of(cluster)

    def work(remote: RemoteMachine, progress: Report) -> Examined:
        return _examine(remote, progress, report, address.token)

    done = on_machines(cluster, "Looking at {name}", work, describe=lambda _: "OK")
    examined = {one.machine.id: one.result.facts for one in done if one.result is not None}
    _write_machines(cluster, done, findings)
    if report is not None:
        findings.notes += plain_warnings(report.machines)
        count = len(queries.connected_daemons(report))
        output.write(f"Coordinator: {address}, {count} connected")
    elif refusal:
        output.write(refusal)
    else:
        output.write(f"Coordinator: none answers at {address}")
        remedy = service_remedy(cluster)
        if remedy is None and any(facts.daemon is not None for facts in examined.values()):
            remedy = "none answers, but daemons run; start it: dora cluster up"
        if remedy is not None:
            findings.add("coordinator", remedy)
    measure_pairs(cluster, examined, findings)
    findings.write()
    return not findings.problems


def _report_of_coordinator(
    cluster: Cluster, findings: Findings
) -> tuple[ClusterReport | None, str]:
    """Return the coordinator's report, or None and a line to print instead of a count."""
    try:
        return queries.report_if_running(cluster), ""
    except DoraError as problem:  # for example, another token or version
        findings.add("coordinator", str(problem))
        if isinstance(problem, CoordinatorBusy):
            result = "accepts no connection now"
        elif isinstance(problem, AccessDenied):
            result = "refuses this account"
        else:
            result = "gives no report"
        return None, f"Coordinator: {queries.endpoint_of(cluster)}, {result}"


def _examine(
    remote: RemoteMachine, progress: Report, report: ClusterReport | None, token: str | None
) -> Examined:
    facts = remote.facts()
    problems = list(warnings(facts))
    notes: list[str] = []
    try:
        require_ready(facts, remote.machine)
    except NotReady as problem:
        problems.append(str(problem))
    if not facts.user_service:
        try:
            remote.connection.check(["true"], sudo=True)
            if facts.service:
                service = DaemonService(remote, facts, user=False)
                given = service.read(service.token) or b""
                token_there = fingerprint(given.decode(errors="replace"))
                facts = facts.model_copy(update={"token": token_there})
        except (SudoUnavailable, RemoteCommandFailed) as problem:
            (problems if facts.service else notes).append(
                str(problem).removeprefix(f"{remote.machine.label}: ")
            )
    problems += find_problems(remote.cluster, remote.machine, facts, report, token)
    found = Examined(facts, None, tuple(problems), tuple(notes))
    if report is None:
        return found
    progress("connecting to the coordinator")
    address = remote.cluster.coordinator
    reached = remote.call("network.reach", host=address.addr, port=address.port)
    return replace(found, coordinator=reached)


def _write_machines(
    cluster: Cluster, outcomes: list[MachineOutcome[Examined]], findings: Findings
) -> None:
    columns = ("MACHINE", "SSH", "PYTHON", "DISK", "MEMORY", "CLOCK", "DAEMON", "COORDINATOR")
    rows = []
    for outcome in outcomes:
        machine, one = outcome.machine, outcome.result
        name = machine.label
        if one is None:
            findings.add(name, outcome.problem or "it was not examined")
            rows.append((machine.id, "FAILED", *(["-"] * 6)))
            continue
        facts = one.facts
        for problem in one.problems:
            findings.add(name, problem)
        findings.notes += [f"{name}: `dora cluster install` would fail: {n}" for n in one.notes]
        rows.append(
            (
                machine.id,
                "OK",
                facts.python,
                f"{facts.free >> 30} GiB",
                f"{facts.memory >> 20} MiB",
                show_offset(facts.clock),
                f"process {facts.daemon.pid}" if facts.daemon else "-",
                _coordinator_cell(cluster, machine, one, findings),
            )
        )
    output.table(columns, rows)


def _coordinator_cell(cluster: Cluster, machine: Machine, one: Examined, findings: Findings) -> str:
    if one.coordinator is None:
        return "-"
    if one.coordinator["reached"]:
        return f"{one.coordinator['seconds'] * 1000:.1f} ms"
    address = cluster.coordinator
    findings.add(
        machine.label,
        f"cannot reach the coordinator at {address.addr} port {address.port}: "
        f"{one.coordinator['reason']}; open that port on the coordinator's machine",
    )
    return "FAILED"
