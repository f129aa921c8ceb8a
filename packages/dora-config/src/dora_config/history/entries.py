"""Events of a dataflow that are kept with their times, and the lines of history files; pure.

The runner keeps events of nodes and links; the coordinator those of placement, machines,
recoveries and stops. Times are those of the machine of the program that keeps them.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from dora_config.dataflow.resolved import ResolvedDataflow
from dora_config.dataflow.sources import LogLevel
from dora_config.frozen import Frozen
from dora_config.protocol.links import PeerState
from dora_config.protocol.runner_events import (
    DataflowStarted,
    DataflowStopping,
    NodeConnected,
    NodeEnded,
    NodeFailed,
    NodeRestarting,
    NodeResult,
    NodeSpawned,
)

STDERR_LINES: Final = 20
STDERR_CHARACTERS: Final = 240
"""Lines of a failed process's stderr that are kept, and characters of each."""
TEXT_CHARACTERS: Final = 2000
"""Characters of a sentence that are kept."""
FIRST_ENTRIES: Final = 200
"""Entries of a dataflow that are kept from its beginning."""
LAST_ENTRIES: Final = 400
"""Entries of a dataflow that are kept from its end."""

# ------------------------------------------------------------------------------- of a runner


class EdgeEnds(Frozen):
    """One edge between two nodes, as ``node/output`` and ``node/input``."""

    source: str
    target: str


def edges_of(dataflow: ResolvedDataflow) -> tuple[EdgeEnds, ...]:
    """Return all edges between two nodes."""
    return tuple(
        EdgeEnds(source=str(source), target=f"{node}/{name}")
        for source, node, name in dataflow.edges()
    )


class RunBegan(Frozen, kind="run_began"):
    """A runner was started for the nodes of one dataflow on one machine."""

    name: str | None = None
    nodes: tuple[str, ...] = ()
    edges: tuple[EdgeEnds, ...] = ()
    """Edges of the whole dataflow."""
    recovered: str | None = None
    """Why the nodes are started again; ``None`` at the first start."""
    pid: int = 0
    version: str = ""


class RunEnded(Frozen, kind="run_ended"):
    """All nodes on one machine have ended, or (``error``) none was started."""

    ok: bool
    stop_reason: str | None = None
    error: str | None = None


class RunnerDied(Frozen, kind="runner_died"):
    """A runner ended without a result; added by the reader of its file."""

    pid: int


class RunnerWarned(Frozen, kind="warned"):
    """A warning or an error of the runner itself."""

    level: LogLevel
    text: str
    node: str | None = None


class InputTimedOut(Frozen, kind="input_timed_out"):
    """An input received nothing for its ``input_timeout``, in seconds."""

    node: str
    input: str
    timeout: float


class InputRecovered(Frozen, kind="input_recovered"):
    """A message arrived on an input that had timed out."""

    node: str
    input: str


class NodeWaits(Frozen, kind="node_waits"):
    """A node waits for something outside of the dataflow; None: the wait is over."""

    node: str
    text: str | None = None


class LinkPeerChanged(Frozen, kind="link_peer"):
    """The state of the link to a peer changed."""

    peer: str
    state: PeerState
    reason: str | None = None


# -------------------------------------------------------------------------- of a coordinator


class StartPlaced(Frozen, kind="start_accepted"):
    """A start was requested; ``placement`` maps machines to nodes."""

    placement: dict[str, tuple[str, ...]]


class StartRefused(Frozen, kind="start_refused"):
    """A dataflow could not be built or placed, so nothing was started."""

    step: Literal["placement", "build"]
    name: str | None = None
    reason: str


class PhaseReached(Frozen, kind="phase"):
    """The dataflow entered another phase; ``reason``: of a failure or a stop."""

    phase: str
    reason: str | None = None


class UserStop(Frozen, kind="stop_requested"):
    """A user requested the stop of the dataflow."""

    force: bool = False


class MachineLost(Frozen, kind="machine_lost"):
    """The connection to a machine with nodes of the dataflow was lost."""

    machine: str
    silent: float | None = None
    """Seconds of silence before the loss; ``None``: the connection was closed after a recent
    message."""


class MachineReturned(Frozen, kind="machine_returned"):
    """A machine with nodes of the dataflow connected again."""

    machine: str


class PartUncontrolled(Frozen, kind="part_uncontrolled"):
    """A daemon lost control of its running nodes; ``reason`` None: it has regained control."""

    machine: str
    reason: str | None = None


class PartRecovering(Frozen, kind="part_lost"):
    """The nodes of one machine were lost and are spawned again after ``delay`` seconds."""

    machine: str
    nodes: tuple[str, ...]
    reason: str
    delay: float | None = None
    """``None``: once the machine is connected."""


class PartRuns(Frozen, kind="part_runs"):
    """The nodes of one machine run again after a recovery."""

    machine: str


class RollOutFailed(Frozen, kind="roll_out_failed"):
    """The roll-out of a generation of the fleet failed for the dataflow."""

    generation: int
    reason: str


RunnerHistoryEvent = (
    RunBegan
    | NodeSpawned
    | NodeConnected
    | NodeRestarting
    | NodeEnded
    | NodeFailed
    | DataflowStarted
    | DataflowStopping
    | RunEnded
    | RunnerDied
    | RunnerWarned
    | InputTimedOut
    | InputRecovered
    | NodeWaits
    | LinkPeerChanged
)
CoordinatorHistoryEvent = (
    StartPlaced
    | StartRefused
    | PhaseReached
    | UserStop
    | MachineLost
    | MachineReturned
    | PartUncontrolled
    | PartRecovering
    | PartRuns
    | RollOutFailed
)
HistoryEvent = Annotated[RunnerHistoryEvent | CoordinatorHistoryEvent, Field(discriminator="kind")]


class HistoryEntry(Frozen):
    """One event; one line of a history file."""

    at: float
    """Unix time by the clock of the machine on which it occurred."""
    event: HistoryEvent
    dataflow: str = ""
    """UUID, in the history file of a coordinator."""


class EntriesDropped(Frozen):
    """A line of a history file that stands for entries which were dropped before it was written."""

    dropped: int
    dataflow: str = ""
    """UUID, in the history file of a coordinator."""


SavedEntry = HistoryEntry | EntriesDropped
"""A line of a history file."""
_ADAPTER: Final[TypeAdapter[SavedEntry]] = TypeAdapter(SavedEntry)


def encode_entry(entry: SavedEntry) -> str:
    """Return the line of an entry, without the newline."""
    try:
        return entry.model_dump_json(exclude_none=True)
    except ValueError:  # a text names a path that is not UTF-8
        text = json.dumps(entry.model_dump(exclude_none=True), ensure_ascii=False)
        return text.encode("utf-8", "replace").decode()


def decode_entry(line: str | bytes) -> SavedEntry | None:
    """Return the entry in a line; ``None`` for a torn line or an event of another version."""
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError:
        return None


def kept_result(result: NodeResult) -> NodeResult:
    """Return the result of a node with the last lines of its stderr."""
    return result.model_copy(
        update={
            "message": result.message[:TEXT_CHARACTERS],
            "stderr_tail": kept_stderr(result.stderr_tail),
        }
    )


def kept_stderr(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Return the last lines of a process's stderr, each cut to a readable length."""
    return tuple(line[:STDERR_CHARACTERS] for line in lines[-STDERR_LINES:])


class KeptEvents:
    """Keeps the beginning as well as the end, because a crash loop must not hide its cause."""

    def __init__(
        self,
        entries: Iterable[SavedEntry] = (),
        *,
        first: int = FIRST_ENTRIES,
        last: int = LAST_ENTRIES,
    ) -> None:
        self._max_first = first
        self._first: list[HistoryEntry] = []
        self._last: deque[HistoryEntry] = deque(maxlen=last)
        self.dropped = 0
        """Entries between the two that were dropped."""
        for entry in entries:
            self.add(entry)

    def add(self, entry: SavedEntry) -> None:
        if isinstance(entry, EntriesDropped):
            self.dropped += entry.dropped
            return
        if len(self._first) < self._max_first:
            self._first.append(entry)
            return
        if len(self._last) == self._last.maxlen:
            self.dropped += 1
        self._last.append(entry)

    def entries(self) -> tuple[HistoryEntry, ...]:
        """Return the kept entries, oldest first."""
        return (*self._first, *self._last)

    def saved(self, dataflow: str = "") -> tuple[SavedEntry, ...]:
        """Return the lines of a file: the kept entries, and the number of the dropped ones."""
        if not self.dropped:
            return self.entries()
        dropped = EntriesDropped(dropped=self.dropped, dataflow=dataflow)
        return (*self._first, dropped, *self._last)


def split_dropped(saved: Iterable[SavedEntry]) -> tuple[tuple[HistoryEntry, ...], int]:
    """Return the entries of a file, and how many were dropped before it was written."""
    entries: list[HistoryEntry] = []
    dropped = 0
    for entry in saved:
        if isinstance(entry, EntriesDropped):
            dropped += entry.dropped
        else:
            entries.append(entry)
    return tuple(entries), dropped
