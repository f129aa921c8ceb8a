"""Spans of starts and recoveries, derived from events and commands, and of coroutines.

Spans are derived outside the state machine: the service passes each event and its commands. One
trace per request: `start` contains `placement` and a `spawn` per machine. `recovery` is a trace of
its own and contains a `spawn`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from dora_config.errors import DoraError
from dora_config.protocol.control import StartDataflow
from dora_config.protocol.daemon import DaemonMessage, PartChanged, PartLost, PreparePart
from dora_coordinator.state import commands as do
from dora_coordinator.state.events import ClientRequested, DaemonMessageReceived, Event
from dora_coordinator.state.records import Phase

logger = logging.getLogger("dora.coordinator")

SpanKey = tuple[str, ...]
"""Identifies an open span: its kind, the dataflow or build, and the machine."""


@dataclass(frozen=True, slots=True)
class SpanBegun:
    """Times are readings of the clock that the caller uses."""

    key: SpanKey
    name: str
    at: float
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    parent: SpanKey | None = None


@dataclass(frozen=True, slots=True)
class SpanEnded:
    key: SpanKey
    at: float
    error: str | None = None


SpanEvent = SpanBegun | SpanEnded


@dataclass(slots=True)
class Outcome:
    error: str | None = None


@contextmanager
def span(
    handle: Callable[[Sequence[SpanEvent]], None],
    key: SpanKey,
    attributes: Mapping[str, str | int],
    parent: SpanKey | None,
) -> Iterator[Outcome]:
    """Report a span of a coroutine."""
    outcome = Outcome()
    handle([SpanBegun(key, key[0], anyio.current_time(), attributes, parent)])
    try:
        yield outcome
    except DoraError as problem:
        outcome.error = str(problem)
        raise
    except BaseException:
        outcome.error = "cancelled"
        raise
    finally:
        handle([SpanEnded(key, anyio.current_time(), outcome.error)])


class SpanTracker:
    """Open spans of starts and recoveries; finished ones are dropped."""

    def __init__(self) -> None:
        self._open: set[SpanKey] = set()
        self._spawning: dict[SpanKey, set[str]] = {}
        """Machines that a start still waits for."""
        self._requests: dict[int, SpanKey] = {}
        """Start of a client's request."""

    def observe(
        self,
        event: Event,
        commands: Iterable[do.Command],
        *,
        daemon: str | None,
        began: float,
        ended: float,
    ) -> list[SpanEvent]:
        """Return the spans that begin and end with an event.

        ``daemon``: the sender of a daemon's message; ``began`` and ``ended``: when the event was
        handled.
        """
        found: list[SpanEvent] = []
        if isinstance(event, ClientRequested):
            found += self._requested(event, began)
        elif isinstance(event, DaemonMessageReceived) and daemon is not None:
            found += self._reported(daemon, event.message, ended)
        for command in commands:
            found += self._commanded(command, began, ended)
        return found

    def _requested(self, event: ClientRequested, at: float) -> Iterator[SpanEvent]:
        request = event.request
        if not isinstance(request, StartDataflow):
            return
        key = self._requests[event.client] = ("start", event.fresh_id)
        attributes = {"dora.dataflow.id": event.fresh_id}
        if request.spec.name is not None:
            attributes["dora.dataflow.name"] = request.spec.name
        yield self._begin(SpanBegun(key, key[0], at, attributes))

    def _commanded(self, command: do.Command, began: float, ended: float) -> Iterator[SpanEvent]:
        key: SpanKey
        match command:
            case do.SaveRecord(record=record) if record.phase.has_ended:
                reason = record.reason or "a node failed"
                failed = record.phase is Phase.FAILED
                yield from self._end_all(record.dataflow_id, ended, reason if failed else None)
            case do.SaveRecord(record=record, spec=spec) if spec is not None:
                key = ("start", record.dataflow_id)
                if key in self._open:
                    machines = {part.daemon for part in record.parts}
                    self._spawning[key] = machines
                    attributes = {"dora.machines": ", ".join(sorted(machines))}
                    placement = ("placement", record.dataflow_id)
                    yield self._begin(SpanBegun(placement, "placement", began, attributes, key))
                    yield from self._end(placement, ended)
            case do.SendToDaemon(daemon=daemon, message=PreparePart() as part):
                yield from self._spawn(daemon, part, ended)
            case do.FailClient(client=client, problem=problem):
                request = self._requests.pop(client, None)
                if request is not None:
                    yield from self._end_all(request[1], ended, str(problem))
            case _:
                pass

    def _spawn(self, daemon: str, part: PreparePart, at: float) -> Iterator[SpanEvent]:
        dataflow = part.dataflow_id
        key: SpanKey = ("spawn", dataflow, daemon)
        parent: SpanKey = ("start", dataflow)
        yield from self._end(key, at, "it was requested again")
        attributes: dict[str, str | int] = {
            "dora.dataflow.id": dataflow,
            "dora.machine": daemon,
            "dora.attempt": part.attempt,
            "dora.nodes": ", ".join(node.id for node in part.spec.resolved.nodes),
        }
        if part.recovers is not None:
            parent = ("recovery", dataflow, daemon)
            yield from self._end(parent, at, "it was requested again")
            reason = {**attributes, "dora.reason": part.recovers}
            yield self._begin(SpanBegun(parent, "recovery", at, reason))
        if parent in self._open:
            yield self._begin(SpanBegun(key, "spawn", at, attributes, parent))

    def _reported(self, daemon: str, message: DaemonMessage, at: float) -> Iterator[SpanEvent]:
        match message:
            case PartChanged(report=report):
                dataflow = report.dataflow_id
                if report.phase == "prepared":
                    yield from self._end(("spawn", dataflow, daemon), at)
                elif report.phase == "running":
                    yield from self._running(dataflow, daemon, at)
                elif report.phase == "ended":
                    yield from self._failed(dataflow, daemon, at, "its nodes ended")
            case PartLost(dataflow_id=dataflow, reason=reason):
                yield from self._failed(dataflow, daemon, at, reason)
            case _:
                pass

    def _running(self, dataflow: str, daemon: str, at: float) -> Iterator[SpanEvent]:
        yield from self._end(("spawn", dataflow, daemon), at)
        yield from self._end(("recovery", dataflow, daemon), at)
        start = ("start", dataflow)
        waiting = self._spawning.get(start)
        if waiting is not None:
            waiting.discard(daemon)
            if not waiting:
                yield from self._end(start, at)

    def _failed(self, dataflow: str, daemon: str, at: float, reason: str) -> Iterator[SpanEvent]:
        yield from self._end(("spawn", dataflow, daemon), at, reason)
        yield from self._end(("recovery", dataflow, daemon), at, reason)

    def _begin(self, span: SpanBegun) -> SpanBegun:
        self._open.add(span.key)
        return span

    def _end(self, key: SpanKey, at: float, error: str | None = None) -> Iterator[SpanEvent]:
        if key not in self._open:
            return
        self._open.discard(key)
        self._spawning.pop(key, None)
        self._requests = {one: open_ for one, open_ in self._requests.items() if open_ != key}
        yield SpanEnded(key, at, error)

    def _end_all(self, subject: str, at: float, error: str | None) -> Iterator[SpanEvent]:
        """End the spans of a dataflow, the contained ones first."""
        for key in sorted((key for key in self._open if key[1] == subject), key=len, reverse=True):
            yield from self._end(key, at, error)


class SpanReports:
    """Passes spans to an exporter, if one is set; a defect ends the export only."""

    def __init__(self) -> None:
        self.handle: Callable[[Sequence[SpanEvent]], None] | None = None
        """Gets the spans of all further events."""
        self._tracker = SpanTracker()

    def observe(
        self, event: Event, commands: Sequence[do.Command], daemon: str | None, began: float
    ) -> None:
        """Report the spans of an event that has just been handled; ``daemon``: its sender."""
        ended = anyio.current_time()
        self._report(
            lambda: self._tracker.observe(event, commands, daemon=daemon, began=began, ended=ended)
        )

    def report(self, spans: Sequence[SpanEvent]) -> None:
        self._report(lambda: spans)

    def _report(self, spans: Callable[[], Sequence[SpanEvent]]) -> None:
        try:
            if self.handle is not None:
                self.handle(spans())
        except Exception:  # must not end the coordinator of a fleet
            logger.exception("internal error, please report it; no more spans are exported")
            self.handle = None
