"""Problems of a machine and its daemon, each with its remedy; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dora_cli.coordinator.machine_warnings import MAX_CLOCK_DIFFERENCE, clock_warning
from dora_cluster.decisions.units import service_name
from dora_cluster.remote_program.existing_daemons import fingerprint
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError
from dora_config.frozen import Frozen
from dora_config.protocol.control import ClusterReport
from dora_config.protocol.snapshot import DaemonSummary

MIN_DISK = 64 << 20
"""Free bytes on the disk below which a machine is refused."""
ENOUGH_DISK = 512 << 20
"""Free bytes on the disk below which a machine gets a warning."""
ENOUGH_MEMORY = 256 << 20
"""Bytes of memory below which a machine gets a warning."""
MAX_SILENCE = 9.0
"""Seconds without a heartbeat (three intervals) after which a daemon counts as hanging."""
_STOPPED = ("T", "t")


class NotReady(DoraError):
    """A machine or the coordinator cannot be used as it is; the message includes the remedy."""


class RunningDaemon(Frozen):
    """Process of a daemon on a machine."""

    pid: int
    words: tuple[str, ...]

    @property
    def arguments(self) -> tuple[str, ...]:
        """The words from `daemon` on."""
        words = self.words
        return words[words.index("daemon") :] if "daemon" in words else ()

    @property
    def tree(self) -> str:
        """Folder of the version that it runs from, if `dora cluster` installed that version."""
        return self.words[0].removesuffix("/bin/python") if self.words else ""

    def serves(self, cluster: Cluster) -> bool:
        """Return whether it connects to the coordinator of the cluster."""
        wanted = {
            "--coordinator-addr": cluster.coordinator.addr,
            "--coordinator-port": str(cluster.coordinator.port),
        }
        return all(self.value(option) == value for option, value in wanted.items())

    def value(self, option: str) -> str | None:
        """Return the value of an option on its command line."""
        after = (two for one, two in zip(self.words, self.words[1:], strict=False) if one == option)
        return next(after, None)


class Mount(Frozen):
    """The file system of a folder that dora uses."""

    path: str
    mount: str
    read_only: bool
    noexec: bool
    writable: bool


class MachineFacts(Frozen):
    """Answer of the command `daemon.facts` on the machine. Sizes in bytes, times in seconds.

    The texts are empty without a problem.
    """

    python: str
    machine: str
    user: str
    uid: int
    home: str
    state: str
    free: int
    memory: int
    memory_files: bool
    systemd: bool
    address: str | None
    """Address of the machine on the route to the coordinator."""
    daemon: RunningDaemon | None
    environment: str | None
    """SHA-256 of the variables that a daemon of `up` was started with."""
    service: bool
    user_service: bool
    dora: str | None
    """Version of the `dora` that the cluster file names."""
    process_state: str
    missing_program: str
    missing_unit_program: str
    token: str | None
    """Fingerprint of the daemon's token."""
    last_line: str
    """Last line in the log of a background daemon."""
    state_mount: Mount
    program_mount: Mount
    clock: float
    """Offset of its clock from this machine's; uncertain by up to ``trip``."""
    trip: float

    @classmethod
    def from_answer(cls, found: Mapping[str, Any], *, sent: float, received: float) -> MachineFacts:
        """Read the program's answer; ``sent`` and ``received`` are times of this machine."""
        clock, trip = found["time"] - (sent + received) / 2, received - sent
        return cls.model_validate({**found, "clock": clock, "trip": trip})


def require_ready(facts: MachineFacts, machine: Machine, *, service: bool = False) -> None:
    """Raise NotReady with every requirement that is not met."""
    problems = list(_unmet_requirements(facts, machine, service=service))
    if problems:
        raise NotReady("; ".join(problems))


def _unmet_requirements(facts: MachineFacts, machine: Machine, *, service: bool) -> Iterator[str]:
    if facts.free < MIN_DISK:
        yield (
            f"its disk has {facts.free >> 20} MiB free (for {facts.state}), and a daemon needs "
            f"{MIN_DISK >> 20} MiB; free some space"
        )
    if machine.dora is not None and facts.dora is None:
        yield (
            f"{machine.dora} (`dora` in the cluster file) does not exist there or does not run; "
            "install it, or remove `dora` from the file"
        )
    if service and not facts.systemd:
        yield "systemd does not run there; use `dora cluster up`, which does not need it"


def require_one_kind(facts: MachineFacts, service: str, *, user: bool) -> None:
    """Raise NotReady if the service is installed for the user and would be for the machine.

    It also raises in the opposite case: two services would start the same daemon.
    """
    if facts.service if user else facts.user_service:
        kind, option = ("a system service", "without") if user else ("a user service", "with")
        raise NotReady(
            f"{service} is installed there as {kind} already; run this command {option} --user, "
            "or remove that service first: dora cluster uninstall"
        )


def warnings(facts: MachineFacts) -> Iterator[str]:
    """Yield problems that may cause failures later, with their remedies."""
    if MIN_DISK <= facts.free < ENOUGH_DISK:
        yield (
            f"only {facts.free >> 20} MiB of disk are free; logs and builds may fail, "
            "free some space"
        )
    if facts.memory < ENOUGH_MEMORY:
        yield (
            f"only {facts.memory >> 20} MiB of memory are free; messages are kept in memory, "
            "end other programs"
        )
    if not facts.memory_files:
        yield "its kernel does not support memory files; messages are kept in unlinked files"
    if abs(facts.clock) - facts.trip > MAX_CLOCK_DIFFERENCE:
        yield clock_warning(facts.clock, "this machine's")


def unresponsive_daemon(facts: MachineFacts, seen: DaemonSummary | None) -> str | None:
    """Return why a running daemon does not respond, and the remedy; None if it responds."""
    if facts.daemon is None:
        return None
    pid = facts.daemon.pid
    if facts.process_state in _STOPPED:
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


def disk_problems(facts: MachineFacts, machine: Machine) -> Iterator[str]:
    """Yield the folders in which a daemon cannot store its state or its program."""
    own_program = machine.dora is None and not facts.service
    places = [facts.state_mount, *([facts.program_mount] if own_program else [])]
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
    if own_program and facts.program_mount.noexec:
        one = facts.program_mount
        yield (
            f"{one.path} is mounted noexec (at {one.mount}), so a dora below it cannot run; there, "
            f"as root: mount -o remount,exec {one.mount}; or name an installation elsewhere "
            "(`dora` in the cluster file)"
        )


def find_problems(
    cluster: Cluster,
    machine: Machine,
    facts: MachineFacts,
    report: ClusterReport | None,
    token: str | None,
) -> Iterator[str]:
    """Yield all problems of a machine.

    ``report``: the coordinator's, None if it does not answer; ``token``: of this account.
    """
    daemons = report.machines if report is not None else ()
    seen = next((one for one in daemons if one.machine_id == machine.id), None)
    install = f"dora cluster {_installer(facts)}"
    yield from disk_problems(facts, machine)
    if facts.missing_unit_program:
        yield (
            f"the program of its service, {facts.missing_unit_program}, does not exist or is not "
            "executable; install it again: dora cluster install"
        )
    if facts.missing_program:
        yield (
            f"the program of its daemon, {facts.missing_program}, was deleted; install it again: "
            f"{install}"
        )
    problem = unresponsive_daemon(facts, seen)
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
        yield _not_connected(facts, machine, token)
    if seen is not None and seen.connected and report is not None:
        yield from _version_difference(seen, report)


def _installer(facts: MachineFacts) -> str:
    """Return the command that installs the daemon of the machine again."""
    return "install" if facts.service or facts.user_service else "up"


def _not_connected(facts: MachineFacts, machine: Machine, token: str | None) -> str:
    service = facts.service or facts.user_service
    if facts.daemon is None:
        what = f"its service {service_name(machine)} does not run" if service else "no daemon runs"
        return f"{what} there; start it: dora cluster up"
    again = f"dora cluster {_installer(facts)}"
    if token is not None and facts.token is not None and facts.token != fingerprint(token):
        return f"its daemon has another token than this account; replace it: {again}"
    last = f' (its last line: "{facts.last_line}")' if facts.last_line and not service else ""
    return f"its daemon (process {facts.daemon.pid}) is not connected{last}; repair it: {again}"


def _version_difference(seen: DaemonSummary, report: ClusterReport) -> Iterator[str]:
    ours = report.coordinator.release
    if seen.release and seen.release != ours:
        yield (
            f"its daemon is dora {seen.release}, the coordinator is dora {ours}; upgrade all to "
            "one version: dora cluster upgrade"
        )
