"""Problems of a machine and its daemon, each with the command that repairs it; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dora_cli.cluster.decisions.preflight import MachineFacts
from dora_cli.cluster.decisions.units import service_name
from dora_cli.coordinator.machine_warnings import show_offset
from dora_cli.remote_program.existing_daemons import fingerprint
from dora_config.cluster.models import Cluster, Machine
from dora_config.frozen import Frozen
from dora_config.protocol.control import ClusterReport
from dora_config.protocol.links import FIRST_PORT, LAST_PORT
from dora_config.protocol.snapshot import DaemonSummary, NodeSummary

MAX_SILENCE = 9.0
"""Seconds without a heartbeat, three intervals, after which a daemon counts as hanging."""
_STOPPED = ("T", "t")

Nodes = Mapping[tuple[str, str], NodeSummary]
"""Nodes with a process, by dataflow and node id."""

MAX_LATENCY = 0.1


@dataclass(frozen=True, slots=True)
class PairResult:
    """Table cell for a pair of machines, and the problems with their remedies."""

    cell: str
    problems: tuple[str, ...] = ()


def data_ports(machine: Machine) -> tuple[int, int]:
    """Return the first and the last port at which links of the machine may listen."""
    first = machine.zenoh_port or FIRST_PORT
    return first, min(first + LAST_PORT - FIRST_PORT, 65535)


def assess_pair(source: Machine, target: Machine, ping: Mapping[str, Any]) -> PairResult:
    """Assess the answer of ``ping`` from ``source`` to ``target``."""
    if "reason" in ping:
        first, last = data_ports(target)
        return PairResult(
            "FAILED",
            (
                f"no data link: {ping['reason']}; open ports {first}-{last} (TCP) of {target.id} "
                f"for {source.id}, or set zenoh_addr to a reachable address",
            ),
        )
    seconds, clock = ping["seconds"], ping["clock"]
    problems = []
    if seconds > MAX_LATENCY:
        problems.append(f"a round trip takes {seconds * 1000:.0f} ms; check the network")
    return PairResult(f"{seconds * 1000:.2f} ms {_clock(clock)}", tuple(problems))


def _clock(seconds: float) -> str:
    return f"{seconds * 1000:+.2f} ms" if abs(seconds) < 1 else show_offset(seconds)


def node_problems(before: Nodes, after: Nodes) -> Iterator[str]:
    """Yield a sentence for each node that does not run any more, or was started again."""
    for key, node in before.items():
        now = after.get(key)
        if now is None or now.status in ("Unknown", "Failed"):
            yield f'node "{node.node}" is {"gone" if now is None else now.status}'
        elif now.pid != node.pid and now.restarts <= node.restarts:
            yield f'node "{node.node}" was started again'


class Mount(Frozen):
    """The file system of a folder that dora uses."""

    path: str
    mount: str
    read_only: bool
    noexec: bool
    writable: bool


class Health(Frozen):
    """Answer of the command `daemon.health` on the machine; empty texts mean no problem."""

    process_state: str
    missing_program: str
    missing_unit_program: str
    token: str | None
    """Fingerprint of the daemon's token."""
    last_line: str
    """Of the log of a background daemon."""
    state_mount: Mount
    program_mount: Mount


def unresponsive_daemon(
    facts: MachineFacts, health: Health, seen: DaemonSummary | None
) -> str | None:
    """Return why a running daemon does not respond, and the remedy; None if it responds."""
    if facts.daemon is None:
        return None
    pid = facts.daemon.pid
    if health.process_state in _STOPPED:
        return (
            f"its daemon (process {pid}) is stopped by a signal (SIGSTOP); "
            f"continue it there: kill -CONT {pid}"
        )
    if seen is not None and seen.connected and seen.heartbeat_age > MAX_SILENCE:
        return (
            f"its daemon (process {pid}) hangs: its last heartbeat was {seen.heartbeat_age:.0f} s "
            f"ago; kill it there: kill -KILL {pid} (its dataflows keep running), and start it "
            "again: dora cluster up"
        )
    return None


def disk_problems(facts: MachineFacts, health: Health, machine: Machine) -> Iterator[str]:
    """Yield the folders in which a daemon cannot store its state or its program."""
    own_program = machine.dora is None and not facts.service
    places = [health.state_mount, *([health.program_mount] if own_program else [])]
    for one in dict.fromkeys(places):
        if one.read_only:
            yield (
                f"{one.path} is on a read-only file system (mounted at {one.mount}); there, as "
                f"root: mount -o remount,rw {one.mount}"
            )
        elif not one.writable:
            yield (
                f"{one.path} is not writable for {facts.user}; there, as root: "
                f"chown {facts.user} {one.path}"
            )
    if own_program and health.program_mount.noexec:
        one = health.program_mount
        yield (
            f"{one.path} is mounted noexec (at {one.mount}), so a dora below it cannot run; there, "
            f"as root: mount -o remount,exec {one.mount}; or name an installation elsewhere "
            "(`dora` in the cluster file)"
        )


def find_problems(
    cluster: Cluster,
    machine: Machine,
    facts: MachineFacts,
    health: Health,
    report: ClusterReport | None,
    token: str | None,
) -> Iterator[str]:
    """Yield all problems of a machine.

    ``report``: the coordinator's, None if it does not answer; ``token``: of this account.
    """
    daemons = report.machines if report is not None else ()
    seen = next((one for one in daemons if one.machine_id == machine.id), None)
    install = f"dora cluster {_installer(facts)}"
    yield from disk_problems(facts, health, machine)
    if health.missing_unit_program:
        yield (
            f"the program of its service, {health.missing_unit_program}, does not exist or is not "
            "executable; install it again: dora cluster install"
        )
    if health.missing_program:
        yield (
            f"the program of its daemon, {health.missing_program}, was deleted; install it again: "
            f"{install}"
        )
    problem = unresponsive_daemon(facts, health, seen)
    if problem is not None:
        yield problem
    elif facts.daemon is not None and not facts.daemon.serves(cluster):
        yield (
            f"its daemon (process {facts.daemon.pid}) belongs to another coordinator, at "
            f"{facts.daemon.value('--coordinator-addr')} port "
            f"{facts.daemon.value('--coordinator-port')}; to move it to this cluster: "
            f"{install} --take-over"
        )
    elif report is not None and (seen is None or not seen.connected):
        yield _not_connected(facts, health, machine, token)
    if seen is not None and seen.connected and report is not None:
        yield from _version_difference(seen, report)


def _installer(facts: MachineFacts) -> str:
    """Return the command that installs the daemon of the machine again."""
    return "install" if facts.service or facts.user_service else "up"


def _not_connected(facts: MachineFacts, health: Health, machine: Machine, token: str | None) -> str:
    service = facts.service or facts.user_service
    if facts.daemon is None:
        what = f"its service {service_name(machine)} does not run" if service else "no daemon runs"
        return f"{what} there; start it: dora cluster up"
    again = f"dora cluster {_installer(facts)}"
    if token is not None and health.token is not None and health.token != fingerprint(token):
        return f"its daemon has another token than this account; replace it: {again}"
    last = f' (its last line: "{health.last_line}")' if health.last_line and not service else ""
    return f"its daemon (process {facts.daemon.pid}) is not connected{last}; repair it: {again}"


def _version_difference(seen: DaemonSummary, report: ClusterReport) -> Iterator[str]:
    ours = report.coordinator.release
    if seen.release and seen.release != ours:
        yield (
            f"its daemon is dora {seen.release}, the coordinator is dora {ours}; upgrade all to "
            "one version: dora cluster upgrade"
        )
