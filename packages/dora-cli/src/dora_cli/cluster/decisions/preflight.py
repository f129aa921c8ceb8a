"""What a machine must have before a daemon is started there, judged from facts; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dora_cli.clock_offset import MOST_CLOCK_DIFFERENCE, clock_warning
from dora_config import DoraError
from dora_config.cluster.models import Cluster, Machine

LEAST_DISK = 64 << 20
ENOUGH_DISK = 512 << 20
ENOUGH_MEMORY = 256 << 20


class NotReady(DoraError):
    """A machine cannot be used as it is; ``str()`` says why and what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that runs on a machine already."""

    pid: int
    words: tuple[str, ...]

    @property
    def arguments(self) -> tuple[str, ...]:
        """From the word `daemon` on."""
        words = self.words
        return words[words.index("daemon") :] if "daemon" in words else ()

    @property
    def tree(self) -> str:
        """The folder of the version that it runs from, when that is one of ours."""
        return self.words[0].removesuffix("/bin/python") if self.words else ""

    def serves(self, cluster: Cluster) -> bool:
        """Whether it is of this cluster."""
        wanted = {
            "--coordinator-addr": cluster.coordinator.addr,
            "--coordinator-port": str(cluster.coordinator.port),
        }
        return all(self.value(option) == value for option, value in wanted.items())

    def value(self, option: str) -> str | None:
        after = (two for one, two in zip(self.words, self.words[1:], strict=False) if one == option)
        return next(after, None)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the program on the machine found out. Sizes in bytes, times in seconds."""

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
    """Its own, on the way to the coordinator."""
    daemon: Running | None
    environment: str | None
    """SHA-256 of the variables that a daemon of `up` was given."""
    service: bool
    user_service: bool
    dora: str | None
    """Version of the `dora` that the cluster file names."""
    clock: float
    """How much its clock is ahead of ours; as uncertain as ``trip``."""
    trip: float

    @classmethod
    def read(cls, found: Mapping[str, Any], *, asked: float, answered: float) -> Facts:
        """From its answer; ``asked`` and ``answered`` by our clock."""
        daemon = found["daemon"]
        trip = answered - asked
        known = {
            name: found[name]
            for name in cls.__dataclass_fields__
            if name not in ("daemon", "clock", "trip")
        }
        return cls(
            **known,
            daemon=Running(daemon["pid"], tuple(daemon["words"])) if daemon else None,
            clock=found["time"] - (asked + answered) / 2,
            trip=trip,
        )


def require_ready(facts: Facts, machine: Machine, *, service: bool = False) -> None:
    """Raises NotReady with everything that is missing."""
    problems = list(_problems(facts, machine, service=service))
    if problems:
        raise NotReady("; ".join(problems))


def _problems(facts: Facts, machine: Machine, *, service: bool) -> Iterator[str]:
    if facts.free < LEAST_DISK:
        yield (
            f"its disk has {facts.free >> 20} MiB free (for {facts.state}), a daemon needs "
            f"{LEAST_DISK >> 20} MiB: make room"
        )
    if machine.dora is not None and facts.dora is None:
        yield f"{machine.dora} (`dora` in the cluster file) is not there, or does not run"
    if service and not facts.systemd:
        yield "systemd does not run there; `dora cluster up` needs none"


def warnings(facts: Facts) -> Iterator[str]:
    """What may go wrong later, with what to do."""
    if LEAST_DISK <= facts.free < ENOUGH_DISK:
        yield f"only {facts.free >> 20} MiB of disk are free: logs and builds may not fit"
    if facts.memory < ENOUGH_MEMORY:
        yield f"only {facts.memory >> 20} MiB of memory are free: messages live in memory"
    if not facts.memory_files:
        yield "its kernel has no memory files: messages are kept in unlinked files"
    if abs(facts.clock) - facts.trip > MOST_CLOCK_DIFFERENCE:
        yield clock_warning(facts.clock, "this machine's")
