"""Results and lines of output of single steps, and waiting for conditions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from dora_cli import output
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.decisions.daemon_argv import ssh_name
from dora_cli.cluster.decisions.health import Nodes
from dora_cli.cluster.decisions.preflight import NotReady
from dora_cli.cluster.machines.parallel import Outcome
from dora_cli.coordinator.errors import CoordinatorBusy, CoordinatorLost, CoordinatorRefused
from dora_cli.polling import wait_until
from dora_config.cluster.models import Cluster
from dora_config.errors import DoraError

RECONNECT_TIMEOUT = 30.0
POLL_INTERVAL = 0.5


@dataclass(frozen=True, slots=True)
class DaemonResult:
    """How the daemon of one machine was installed or started."""

    text: str
    remarks: tuple[str, ...] = ()


def print_remarks(outcomes: Iterable[Outcome[DaemonResult]]) -> None:
    for one in outcomes:
        for remark in one.result.remarks if one.result is not None else ():
            output.warn(f"{ssh_name(one.machine)}: {remark}")


@dataclass(slots=True)
class Findings:
    """What `dora cluster doctor` has found: problems with their remedies, and notes."""

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
