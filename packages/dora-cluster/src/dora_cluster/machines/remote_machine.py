"""Machines of a cluster over SSH: their connections, and work on several of them at once."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dora_cli import output
from dora_cli.screen import RedrawnLines, can_redraw
from dora_cluster.bundle.layout import USER, Layout, system
from dora_cluster.connection import MachineConnection
from dora_cluster.decisions.preflight import MachineFacts
from dora_cluster.decisions.units import service_name
from dora_cluster.remote_call import call
from dora_cluster.ssh.connection import connect
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError, error_text
from dora_config.terminal import one_line

MAX_AT_ONCE = 16
"""Machines on which one operation works at the same time, each in a thread."""

S = TypeVar("S")
T = TypeVar("T")
Report = Callable[[str], None]
"""Function that shows the current step."""


def connect_to(machine: Machine) -> MachineConnection:
    """Log in to a machine; raises SshError."""
    return connect(machine)


def layout_of(machine: Machine, *, user: bool) -> Layout:
    """Return the paths of the installation: in the user's home, or below ``prefix``."""
    return USER if user else system(machine.prefix)


class RemoteMachine:
    """A connection to a machine of a cluster."""

    def __init__(self, cluster: Cluster, machine: Machine, connection: MachineConnection) -> None:
        self.cluster = cluster
        self.machine = machine
        self.connection = connection

    @property
    def service(self) -> str:
        """Name of the unit without ``.service``."""
        return service_name(self.machine)

    def call(self, command: str, **options: Any) -> dict[str, Any]:
        """Run a command of ``remote_program`` and return its result; raises DoraError."""
        return call(self.connection, command, **options)

    def facts(self) -> MachineFacts:
        """Fetch the current facts about the machine."""
        begin = time.time()
        found = self.call(
            "daemon.facts",
            name=self.machine.daemon,
            unit=self.service,
            dora=self.machine.dora,
            coordinator=self.cluster.coordinator.addr,
        )
        return MachineFacts.from_answer(found, sent=begin, received=time.time())


class ProgressLines:
    """Lines with a label each; the methods may be called from any thread."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._current = ["waiting"] * len(labels)
        self._results: list[str | None] = [None] * len(labels)
        size = shutil.get_terminal_size()
        self._drawing = RedrawnLines() if can_redraw() and len(labels) < size.lines else None
        self._written = 0
        """Number of lines that were printed; redrawn lines are not counted."""
        self._lock = threading.Lock()
        self._draw()

    def update(self, number: int, text: str) -> None:
        """Show the current step of a line; visible on a terminal only."""
        with self._lock:
            self._current[number] = text
            self._draw()

    def end(self, number: int, text: str) -> None:
        """Show the result of a line."""
        with self._lock:
            self._results[number] = text
            if self._drawing is not None:
                self._draw()
                return
            while self._written < len(self._results):
                result = self._results[self._written]
                if result is None:
                    break
                output.write(f"{self._labels[self._written]}... {result}")
                self._written += 1

    def _draw(self) -> None:
        """Draw all lines on a terminal; results in full once all lines have one."""
        if self._drawing is not None:
            self._drawing.draw([self._row(number) for number in range(len(self._labels))])

    def _row(self, number: int) -> str:
        label, result = self._labels[number], self._results[number]
        if all(text is not None for text in self._results):
            return f"{label}... {result}"
        text = f"{label}... {self._current[number] if result is None else result}"
        return one_line(text.partition("\n")[0])[: shutil.get_terminal_size().columns - 1]


@dataclass(frozen=True, slots=True)
class MachineOutcome(Generic[T]):
    """The result of the work on one machine, or why it failed."""

    machine: Machine
    result: T | None
    problem: str | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None


MachineKey = tuple[str, str, int | None]


def key_of(machine: Machine) -> MachineKey:
    """Return the identity of an entry of a cluster file."""
    return machine.id, machine.target, machine.port


class Connections:
    """The connections of one command; all are closed when it is interrupted."""

    def __init__(self) -> None:
        self._kept: dict[MachineKey, MachineConnection | DoraError] = {}
        """Open connections, and for other machines the error of the attempt."""
        self._open: set[MachineConnection] = set()
        self._lock = threading.Lock()
        self._closed = False

    def connect(self, machines: Sequence[Machine]) -> None:
        """Log in to all machines at once; `open` uses these connections."""
        in_parallel(self, machines, self._connect)

    def _connect(self, machine: Machine) -> None:
        found: MachineConnection | DoraError
        try:
            found = connect_to(machine)
        except DoraError as error:
            found = error
        with self._lock:
            self._kept[key_of(machine)] = found

    def problem(self, machine: Machine) -> DoraError | None:
        """Return the error that `open` raises for a machine; None: it has not failed so far."""
        kept = self._kept.get(key_of(machine))
        return kept if isinstance(kept, DoraError) else None

    def exclude(self, machine: Machine, problem: DoraError) -> None:
        """Close the connection to a machine; `open` raises ``problem`` from now on."""
        with self._lock:
            kept = self._kept.get(key_of(machine))
            self._kept[key_of(machine)] = problem
        if kept is not None and not isinstance(kept, DoraError):
            kept.close()

    @contextmanager
    def open(self, machine: Machine) -> Iterator[MachineConnection]:
        """Use the connection of `connect`, or a new one for the block; raises DoraError."""
        kept = self._kept.get(key_of(machine))
        if isinstance(kept, DoraError):
            raise kept
        with nullcontext(kept) if kept is not None else connect_to(machine) as connection:
            with self._lock:
                self._open.add(connection)
                closed = self._closed
            if closed:
                connection.close()  # further work fails at once
            try:
                yield connection
            finally:
                with self._lock:
                    self._open.discard(connection)

    def close(self) -> None:
        """Close all connections; commands that run over them fail."""
        with self._lock:
            self._closed = True
            kept = [one for one in self._kept.values() if not isinstance(one, DoraError)]
            connections = {*self._open, *kept}
        for connection in connections:
            connection.close()


def in_parallel(connections: Connections, items: Sequence[S], work: Callable[[S], T]) -> list[T]:
    """Call ``work`` for each item in threads; return the results in order.

    Ctrl-C closes the ``connections``, so that ``work`` fails; an attempt to connect ends first, at
    the latest by its time limit.
    """
    futures: list[Future[T]] = []
    with ThreadPoolExecutor(min(MAX_AT_ONCE, len(items) or 1)) as pool:
        try:
            for item in items:
                futures.append(pool.submit(work, item))
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            for future in futures:
                future.cancel()
            connections.close()
            raise


def on_machines(
    cluster: Cluster,
    label: str,
    work: Callable[[RemoteMachine, Report], T],
    *,
    machines: Sequence[Machine] | None = None,
    describe: Callable[[T], str] = lambda result: str(result or "OK"),
    connections: Connections | None = None,
) -> list[MachineOutcome[T]]:
    """Do ``work`` on all machines in parallel; return the outcomes in the order of the file.

    ``label`` begins each line, with ``{name}`` (or ``{id}`` and ``{target}``) for the machine, and
    ``describe`` ends it. A failure on one machine does not affect the others.
    """
    chosen = cluster.machines if machines is None else machines
    used = Connections() if connections is None else connections
    lines = ProgressLines(
        [label.format(name=one.label, id=one.id, target=one.target) for one in chosen]
    )

    def work_on(numbered: tuple[int, Machine]) -> MachineOutcome[T]:
        number, machine = numbered

        def report(text: str) -> None:
            with suppress(OSError):  # an error of the output; `end` raises it
                lines.update(number, text)

        try:
            report("connecting")
            with used.open(machine) as connection:
                report("working")
                result = work(RemoteMachine(cluster, machine, connection), report)
        except (DoraError, OSError) as error:
            reason = error_text(error).removeprefix(f"{machine.label}: ")
            lines.end(number, f"FAILED: {reason}")
            return MachineOutcome(machine, None, reason)
        lines.end(number, describe(result))
        return MachineOutcome(machine, result)

    return in_parallel(used, list(enumerate(chosen)), work_on)


def success_count(outcomes: Sequence[MachineOutcome[T]]) -> str:
    """Return the number of successes, as in `2/2 succeeded.`"""
    return f"{sum(one.ok for one in outcomes)}/{len(outcomes)} succeeded."
