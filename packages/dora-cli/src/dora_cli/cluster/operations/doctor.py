"""`dora cluster doctor`: checks the coordinator, every machine and every pair of machines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dora_cli import output
from dora_cli.clock_offset import show_offset
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.coordinator.service_control import service_remedy
from dora_cli.cluster.decisions.daemon_argv import ssh_name, without_name
from dora_cli.cluster.decisions.health import find_problems
from dora_cli.cluster.decisions.preflight import MachineFacts, NotReady, require_ready, warnings
from dora_cli.cluster.machines.daemon_service import DaemonService
from dora_cli.cluster.machines.parallel import Outcome, Report, on_machines
from dora_cli.cluster.machines.remote_machine import RemoteMachine
from dora_cli.cluster.operations.pair_measurement import measure_pairs
from dora_cli.cluster.operations.steps import Findings
from dora_cli.coordinator.errors import AccessDenied, CoordinatorBusy
from dora_cli.coordinator.machine_warnings import plain_warnings
from dora_cli.remote_program.existing_daemons import fingerprint
from dora_cli.ssh import RemoteCommandFailed, SudoUnavailable
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError
from dora_config.protocol.control import ClusterReport


@dataclass(frozen=True, slots=True)
class Examined:
    """The result of one machine."""

    facts: MachineFacts
    coordinator: dict[str, Any] | None
    """Whether it reaches the coordinator; None: without a coordinator."""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def diagnose(cluster: Cluster) -> bool:
    """Check everything and print the results; return whether there are no problems."""
    findings = Findings()
    report, refusal = _ask_coordinator(cluster, findings)
    address = queries.endpoint_of(cluster)

    def work(remote: RemoteMachine, progress: Report) -> Examined:
        return _examine(remote, progress, report, address.token)

    done = on_machines(cluster, "Looking at {name}", work)
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


def _ask_coordinator(cluster: Cluster, findings: Findings) -> tuple[ClusterReport | None, str]:
    """Return the coordinator's report, or None and a line to print instead of a count."""
    try:
        return queries.report_if_running(cluster), ""
    except DoraError as problem:  # another token, another version
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
    health = remote.health(facts)
    if not facts.user_service:
        try:
            remote.connection.check(["true"], sudo=True)
            if facts.service:
                service = DaemonService(remote, facts, user=False)
                given = service.read(service.token) or b""
                token_there = fingerprint(given.decode(errors="replace"))
                health = health.model_copy(update={"token": token_there})
        except (SudoUnavailable, RemoteCommandFailed) as problem:
            (problems if facts.service else notes).append(
                without_name(str(problem), ssh_name(remote.machine))
            )
    problems += find_problems(remote.cluster, remote.machine, facts, health, report, token)
    found = Examined(facts, None, tuple(problems), tuple(notes))
    if report is None:
        return found
    progress("connecting to the coordinator")
    address = remote.cluster.coordinator
    reached = remote.call("network.reach", host=address.addr, port=address.port)
    return replace(found, coordinator=reached)


def _write_machines(
    cluster: Cluster, outcomes: list[Outcome[Examined]], findings: Findings
) -> None:
    columns = ("MACHINE", "SSH", "PYTHON", "DISK", "MEMORY", "CLOCK", "DAEMON", "COORDINATOR")
    rows = []
    for outcome in outcomes:
        machine, one = outcome.machine, outcome.result
        name = ssh_name(machine)
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
        ssh_name(machine),
        f"cannot reach the coordinator at {address.addr} port {address.port}: "
        f"{one.coordinator['reason']}; open that port on the coordinator's machine",
    )
    return "FAILED"
