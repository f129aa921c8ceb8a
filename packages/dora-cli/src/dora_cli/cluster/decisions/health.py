"""What ails a machine of a cluster, each fact with the command that repairs it; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dora_cli.cluster.decisions.daemon_unit import service_name
from dora_cli.cluster.decisions.preflight import Facts
from dora_config.cluster.models import Cluster, Machine
from dora_config.protocol.control import ClusterReport, DaemonSummary

LONGEST_SILENCE = 9.0
"""Seconds without a heartbeat, three times the usual interval, after which a daemon hangs."""
_STOPPED = ("T", "t")


@dataclass(frozen=True, slots=True)
class Mount:
    """The file system of a folder that dora uses."""

    path: str
    mount: str
    read_only: bool
    noexec: bool
    writable: bool


@dataclass(frozen=True, slots=True)
class Health:
    """What `health_program` found on the machine; empty texts for what is well."""

    process_state: str
    missing_program: str
    missing_unit_program: str
    token: str | None
    """SHA-256 of the token that the daemon was given."""
    last_line: str
    """Of the log of a background daemon."""
    state_mount: Mount
    program_mount: Mount

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Health:
        """From the program's answer."""
        known = dict(found)
        state_mount = Mount(**known.pop("state_mount"))
        program_mount = Mount(**known.pop("program_mount"))
        return cls(**known, state_mount=state_mount, program_mount=program_mount)


def token_digest(token: str) -> str:
    """As in `Health.token`."""
    return hashlib.sha256(token.strip().encode()).hexdigest()


def unresponsive(facts: Facts, health: Health, seen: DaemonSummary | None) -> str | None:
    """Why a daemon that runs does not answer, and the remedy; None unless it is so."""
    if facts.daemon is None:
        return None
    pid = facts.daemon.pid
    if health.process_state in _STOPPED:
        return (
            f"its daemon (process {pid}) is stopped by a signal (SIGSTOP) and answers nothing; "
            f"continue it there: kill -CONT {pid}"
        )
    if seen is not None and seen.connected and seen.heartbeat_age > LONGEST_SILENCE:
        return (
            f"its daemon (process {pid}) hangs: its last heartbeat was {seen.heartbeat_age:.0f} s "
            f"ago; kill it there: kill -KILL {pid} (its dataflows go on), and start it again: "
            "dora cluster up"
        )
    return None


def unusable_disks(facts: Facts, health: Health, machine: Machine) -> Iterator[str]:
    """Folders in which a daemon cannot keep its state, or its program."""
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
            f"as root: mount -o remount,exec {one.mount}; or use one that lies elsewhere (`dora` "
            "in the cluster file)"
        )


def ailments(
    cluster: Cluster,
    machine: Machine,
    facts: Facts,
    health: Health,
    report: ClusterReport | None,
    token: str | None,
) -> Iterator[str]:
    """All of it. ``report``: of the coordinator, None when none answers; ``token``: this
    account's.
    """
    daemons = report.daemons if report is not None else ()
    seen = next((one for one in daemons if one.machine_id == machine.id), None)
    service = facts.service or facts.user_service
    yield from unusable_disks(facts, health, machine)
    if health.missing_unit_program:
        yield (
            f"the program of its service, {health.missing_unit_program}, is missing or cannot be "
            "executed; install it again: dora cluster install"
        )
    if health.missing_program:
        yield (
            f"the program of its daemon, {health.missing_program}, was deleted; install it again: "
            f"dora cluster {'install' if service else 'up'}"
        )
    problem = unresponsive(facts, health, seen)
    if problem is not None:
        yield problem
    elif facts.daemon is not None and not facts.daemon.serves(cluster):
        yield (
            f"its daemon (process {facts.daemon.pid}) is of another coordinator, at "
            f"{facts.daemon.value('--coordinator-addr')} port "
            f"{facts.daemon.value('--coordinator-port')}; if it is to belong to this cluster: "
            f"dora cluster {'install' if service else 'up'} --take-over"
        )
    elif report is not None and (seen is None or not seen.connected):
        yield _not_connected(facts, health, machine, token)
    if seen is not None and seen.connected and report is not None:
        yield from _other_version(seen, report)


def _not_connected(facts: Facts, health: Health, machine: Machine, token: str | None) -> str:
    service = facts.service or facts.user_service
    if facts.daemon is None:
        what = f"its service {service_name(machine)} does not run" if service else "no daemon runs"
        return f"{what} there; start it: dora cluster up"
    again = f"dora cluster {'install' if service else 'up'}"
    if token is not None and health.token is not None and health.token != token_digest(token):
        return f"its daemon was given another token than this account has; renew it: {again}"
    last = f' (its last line: "{health.last_line}")' if health.last_line and not service else ""
    return f"its daemon (process {facts.daemon.pid}) is not connected{last}; repair it: {again}"


def _other_version(seen: DaemonSummary, report: ClusterReport) -> Iterator[str]:
    ours = report.coordinator.release
    if seen.release and seen.release != ours:
        yield (
            f"its daemon is dora {seen.release}, the coordinator is dora {ours}; bring all to one "
            "version: dora cluster upgrade"
        )
