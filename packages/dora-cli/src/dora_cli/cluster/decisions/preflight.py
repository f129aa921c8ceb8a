"""Whether a machine meets the requirements of a daemon, judged from facts; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dora_cli.coordinator.machine_warnings import MAX_CLOCK_DIFFERENCE, clock_warning
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError
from dora_config.frozen import Frozen

MIN_DISK = 64 << 20
ENOUGH_DISK = 512 << 20
ENOUGH_MEMORY = 256 << 20


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


class MachineFacts(Frozen):
    """Facts about a machine, from the program that runs there. Sizes in bytes, times in seconds."""

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
    """Its own address on the route to the coordinator."""
    daemon: RunningDaemon | None
    environment: str | None
    """SHA-256 of the variables that a daemon of `up` was started with."""
    service: bool
    user_service: bool
    dora: str | None
    """Version of the `dora` that the cluster file names."""
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

    Or the other way round: two services would start the same daemon.
    """
    if facts.service if user else facts.user_service:
        kind, option = ("a system service", "without") if user else ("a user service", "with")
        raise NotReady(
            f"{service} is installed there as {kind} already; run this command {option} --user, "
            "or remove that service first: dora cluster uninstall"
        )


def warnings(facts: MachineFacts) -> Iterator[str]:
    """Yield what may fail later, with the remedy."""
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
