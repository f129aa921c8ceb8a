"""Steps of a switch to another version: their lines of output, waiting, and their order."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import ClassVar

from dora_cli import output
from dora_cli.coordinator.errors import CoordinatorBusy, CoordinatorLost, CoordinatorRefused
from dora_cli.polling import wait_until
from dora_cluster.coordinator import queries
from dora_cluster.coordinator.queries import Nodes
from dora_cluster.decisions.preflight import NotReady
from dora_cluster.machines.remote_machine import MachineOutcome
from dora_config.cluster.models import Cluster
from dora_config.errors import DoraError

RECONNECT_TIMEOUT = 30.0
"""Seconds for a started process to connect."""
POLL_INTERVAL = 0.5
"""Seconds between two checks while a command waits."""

FAULTS = (DoraError, OSError)


class VersionSwitch(ABC):
    """Switch of one process to another version; subclasses start and restore the process."""

    WHAT: ClassVar[str]
    """Process that is switched, as in messages: ``coordinator`` or ``daemon``."""
    ANSWER: ClassVar[str]
    """Verb in messages about a new version that fails: ``answer`` or ``connect``."""
    REMEDY: ClassVar[str]
    """Remedy if the old version could not be started either."""

    def __init__(self, place: str, old: str) -> None:
        """``place``: the machine's name in messages; ``old``: empty if nothing answers."""
        self.place = place
        self.old = old
        self.new = ""
        self.replacing = False
        """Whether the old version may have been ended."""

    @abstractmethod
    def prepare(self) -> bool:
        """Prepare what the new version needs; return False if it runs already."""

    @abstractmethod
    def undo(self) -> None:
        """Undo `prepare`, which may have failed."""

    @abstractmethod
    def replace(self) -> None:
        """End the old version and start the new one."""

    @abstractmethod
    def release(self) -> str:
        """Return the version that answers; empty if none does; raises CoordinatorBusy."""

    @abstractmethod
    def last_lines(self) -> Sequence[str]:
        """Return the end of the new version's output."""

    @abstractmethod
    def check(self) -> None:
        """Raise NotReady unless everything is as it was before."""

    @abstractmethod
    def restore(self) -> None:
        """Undo `replace`, which may have failed anywhere, and `prepare`."""

    def run(self) -> bool:
        """Switch; return False if the new version runs already.

        If it fails, it raises NotReady, and the old version runs again.
        """
        if not self.begin():
            return False
        self.finish()
        return True

    def begin(self) -> bool:
        """Prepare; return False if the new version runs already; raises as `run`."""
        with self.returning():
            return self.prepare()

    def finish(self) -> None:
        """Replace the old version and check the new one; raises as `run`."""
        with self.returning():
            self.replacing = True
            self.replace()
            self.wait()
            self.check()

    @contextmanager
    def returning(self) -> Iterator[None]:
        """Return to the old version if the block fails; raises NotReady with that added."""
        try:
            yield
        except BaseException as problem:
            self._return(problem)
            if not self.replacing or not isinstance(problem, FAULTS):
                raise
            text = f"{problem}\n  (the {self.WHAT} runs {self._before} again)"
            raise NotReady(text) from problem

    def wait(self) -> None:
        """Wait until the new version answers; raises NotReady with its last lines."""
        try:
            poll(lambda: self.release() == self.new, f"dora {self.new} did not {self.ANSWER}")
        except DoraError as problem:
            lines = "\n".join(f"    {line}" for line in self.last_lines())
            raise NotReady(f"{problem}; its last lines:\n{lines}") from problem

    @property
    def _before(self) -> str:
        return self.old or "the version before"

    def _return(self, problem: BaseException) -> None:
        """Return to the old version; raises NotReady with ``problem`` if that fails too."""
        if not self.replacing:
            with suppress(*FAULTS):  # the machine may be unreachable
                self.undo()
            return
        if isinstance(problem, FAULTS):
            text = str(problem)
        else:  # Ctrl-C
            text = "interrupted"
            write_line(
                f"  Interrupted: returning to {self._before}; a second Ctrl-C leaves it as it is"
            )
        try:
            with step(f"Return to {self._before}"):
                self.restore()
                if self.old:
                    failure = f"dora {self.old} did not {self.ANSWER} either"
                    poll(lambda: self.release() == self.old, failure)
        except FAULTS as second:
            reason = str(second).removeprefix(f"{self.place}: ")
            raise NotReady(
                f"{text}\n  and it could not be returned: {reason}\n  {self.REMEDY}"
            ) from second


@dataclass(frozen=True, slots=True)
class DaemonResult:
    """Result of the installation or start of one machine's daemon."""

    text: str
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


def print_remarks(outcomes: Iterable[MachineOutcome[DaemonResult]]) -> None:
    for one in outcomes:
        for remark in one.result.remarks if one.result is not None else ():
            output.warn(f"{one.machine.label}: {remark}")


@dataclass(slots=True)
class Findings:
    """Findings of `dora doctor`: problems with their remedies, and notes."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Problems for some commands only; not a failure."""

    def add(self, subject: str, text: str) -> None:
        self.problems.append(f"{subject}: {text}")

    def write(self) -> None:
        for line in self.problems:
            output.write(f"- {line}")
        for note in self.notes:
            output.write(f"note: {note}")


_prefix: ContextVar[str] = ContextVar("prefix", default="")


def write_line(text: str) -> None:
    """Write a line, below the name of its machine while several are worked on at once."""
    output.write(f"{_prefix.get()}{text}")


@contextmanager
def prefixed(prefix: str) -> Iterator[None]:
    """Begin the lines of this thread with ``prefix``."""
    token = _prefix.set(prefix)
    try:
        yield
    finally:
        _prefix.reset(token)


@contextmanager
def step(label: str, *, timed: bool = False, detail: str = "") -> Iterator[None]:
    """Print ``  Restart service... OK`` after the block, or FAILED."""
    begun = time.monotonic()
    try:
        yield
    except (DoraError, OSError):
        write_line(f"  {label}... FAILED")
        raise
    more = f"{time.monotonic() - begun:.1f}s" if timed else detail
    write_line(f"  {label}... OK" + (f" ({more})" if more else ""))


def forgiving(condition: Callable[[], bool]) -> Callable[[], bool]:
    """Return a condition that is not met while the coordinator is busy or lost.

    CoordinatorRefused is raised.
    """

    def met() -> bool:
        try:
            return condition()
        except CoordinatorRefused:
            raise
        except (CoordinatorBusy, CoordinatorLost):
            return False

    return met


def poll(condition: Callable[[], bool], problem: str) -> None:
    """Wait for a condition, as by `forgiving`; raises NotReady with ``problem``."""
    if not wait_until(forgiving(condition), RECONNECT_TIMEOUT, every=POLL_INTERVAL):
        raise NotReady(f"{problem} within {RECONNECT_TIMEOUT:g} s")


def wait_for_nodes(cluster: Cluster, before: Nodes) -> None:
    """Wait until a new coordinator has every node of the old one; raises NotReady."""
    missing = sorted(before)

    def complete() -> bool:
        missing[:] = sorted(before.keys() - queries.fetch_nodes(cluster).keys())
        return not missing

    try:
        with step("Waiting for its daemons", timed=True):
            poll(complete, "nodes are missing")
    except DoraError:
        names = ", ".join(node for _, node in missing)
        raise NotReady(
            f"the coordinator was replaced, but it misses nodes: {names}; see `dora cluster status`"
        ) from None
