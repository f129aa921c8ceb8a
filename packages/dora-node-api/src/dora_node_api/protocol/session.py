"""Order of a node's events; pure: no socket, no pipe, no clock.

It turns control messages and records of the inputs into event dictionaries. The rules:

- control messages (STOP, parameters, reload) come first, so they may overtake data;
- among inputs with something waiting, the one served least recently is next, so none starves;
- within an input everything keeps its order: INPUT_CLOSED follows its last message;
- STOP ends the stream.

Times are nanoseconds of CLOCK_MONOTONIC, passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dora_node_api.data.arrow import null_array
from dora_node_api.data.metadata import captured_ns
from dora_node_api.protocol import messages
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import RecordKind

if TYPE_CHECKING:
    from dora_node_api.transport.consumer.delivery import Delivery

Event = dict[str, Any]
"""An event as users get it: a plain dictionary with the keys that apply."""

Poll = Callable[[], "Delivery | None"]
"""Takes the next record of one input; returns None if nothing waits. Never blocks."""

Ready = Callable[[], bool]
"""Whether polling an input may succeed; costs no system call."""

DECODE_ERRORS = (BrokenRecord, ValueError, TypeError, LookupError, OverflowError, MemoryError)
"""Errors of decoding a record; each becomes an ERROR event."""

_DATA = RecordKind.DATA  # looking up an enum member costs more than comparing it


class Tick(Event):
    """Event of a timer: a dictionary whose value is made, and pyarrow imported, when it is read."""

    __slots__ = ()

    def __missing__(self, key: str) -> Any:
        if key != "value":
            raise KeyError(key)
        value = self[key] = null_array()
        return value

    def __contains__(self, key: object) -> bool:
        return key == "value" or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def copy(self) -> Tick:
        return Tick(dict.items(self))


def _with_value(name: str) -> Callable[..., Any]:
    method = getattr(dict, name)

    def call(tick: Tick, *arguments: Any) -> Any:
        tick["value"]
        return method(tick, *arguments)

    return call


for _name in (
    *(
        "__delitem__",
        "__eq__",
        "__iter__",
        "__len__",
        "__ne__",
        "__or__",
        "__repr__",
        "__reversed__",
    ),
    *("__ror__", "items", "keys", "pop", "popitem", "setdefault", "values"),
):
    setattr(Tick, _name, _with_value(_name))


class SendOffset:
    """The time of a send on our CLOCK_MONOTONIC minus that on the sender's CLOCK_REALTIME.

    It is the smallest of the last second or two: between the two readings a sender may be
    interrupted, or wait for room in a queue, and a link that has just started does not yet correct
    the time of the send.
    """

    __slots__ = ("_before", "_since", "_smallest")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Discard all offsets: another process sends from now on."""
        self._since = 0
        self._smallest: int | None = None
        self._before: int | None = None

    def add(self, offset: int, now: int) -> int:
        """Add the offset of a message; return the one to use."""
        smallest = self._smallest
        if smallest is None or now - self._since > _OFFSETS_NS:
            self._since, self._smallest, self._before = now, offset, smallest
        elif offset < smallest:
            self._smallest = offset
        assert self._smallest is not None
        return self._smallest if self._before is None else min(self._smallest, self._before)


_OFFSETS_NS = 1_000_000_000
"""Age from which an offset is replaced."""


class InputState:
    """State of one input."""

    __slots__ = (
        *("broken", "config", "corrected", "deadline", "failures", "held", "id", "interval"),
        *("offset", "open", "poll", "ready", "restarts", "tick", "timed", "timeout"),
    )

    def __init__(
        self, config: messages.InputConfig, poll: Poll | None, ready: Ready | None
    ) -> None:
        self.id = config.id
        self.config = config
        self.poll = poll
        self.ready = ready
        self.held: Delivery | None = None
        """A message that waits behind the INPUT_RECOVERED event it caused."""
        self.open = True
        self.broken = False
        """Whether no message came for `input_timeout`: reported as closed, but may recover."""
        self.interval = config.interval_ns if config.source_kind == "timer" else None
        self.tick = 0
        """Number of the next tick of a timer."""
        self.timeout = None if config.input_timeout is None else int(config.input_timeout * 1e9)
        self.deadline: int | None = None
        """Time at which the input breaks; None until its first message."""
        self.corrected = False
        """Whether events of the input have the time of the capture."""
        self.offset = SendOffset()
        self.timed = self.timeout is not None
        """Whether the send times of the input's messages are used."""
        self.restarts = 0
        self.failures = 0


class Session:
    """Event stream of one node; `next_event` returns its events in order."""

    def __init__(self, config: messages.NodeConfig, *, wall_time: Callable[[int], Any]) -> None:
        """`wall_time(ns)` is the time `ns` nanoseconds ago."""
        self.config = config
        self.inputs: dict[str, InputState] = {}
        self._order: list[InputState] = []
        """Least recently served first."""
        self._several = False
        self._timed = False
        self._first: deque[Event] = deque()
        """Events that precede everything that waits at inputs."""
        self._wall_time = wall_time
        self._epoch: int | None = None
        self._restarted: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self._corrected: set[str] = set()
        self.stopping: str | None = None
        """Reason of the STOP that was or will be returned."""
        self.ended = False
        """Whether STOP was returned, after which no event follows."""
        self.taking = False
        """Whether a message is being taken, which an exception of `next_event` would lose."""

    # --- going in --------------------------------------------------------------------------------

    def add_input(
        self,
        config: messages.InputConfig,
        poll: Poll | None = None,
        ready: Ready | None = None,
        *,
        now: int,
    ) -> None:
        """Connect an input, or replace the source of an existing one. `poll` None: a timer."""
        self.remove_input(config.id)
        entry = InputState(config, poll, ready)
        entry.tick = self._due(entry, now) + 1  # it gets none of the ticks before it was added
        node = config.source_node or ""
        entry.restarts = self._restarted.get(node, 0)
        entry.failures = self._failed.get(node, 0)
        self.inputs[config.id] = entry
        self._order.append(entry)
        self._correct(entry)
        self._look_at_inputs()

    def remove_input(self, name: str) -> None:
        """Remove an input without an event."""
        if (entry := self.inputs.pop(name, None)) is not None:
            self._order.remove(entry)
            self._look_at_inputs()

    def correct_times(self, inputs: Iterable[str]) -> None:
        """Add `captured_ns` to later events of these inputs, also of those that come later.

        That is CLOCK_MONOTONIC of this machine when the message was captured. It is correct between
        machines, and whatever their clocks show: the sender's clock only measures the time from the
        capture to the send, and links correct the time of the send.
        """
        self._corrected.update(inputs)
        for entry in self._order:
            self._correct(entry)

    def _correct(self, entry: InputState) -> None:
        entry.corrected = entry.id in self._corrected
        entry.timed = entry.corrected or entry.timeout is not None

    def start(self, epoch: int) -> None:
        """Start the timers; they tick from `epoch` on."""
        self._epoch = epoch

    def handle(self, message: messages.Message) -> None:
        """Process a message of the runner that concerns the user."""
        match message:
            case messages.StopNode(reason):
                self.stop(reason)
            case messages.SetParam(key, value):
                self._first.append(
                    {"type": "PARAM_UPDATE", "id": key, "value": value, "kind": "dora"}
                )
            case messages.DeleteParam(key):
                self._first.append({"type": "PARAM_DELETED", "id": key, "kind": "dora"})
            case messages.ReloadOperator(operator):
                event: Event = {"type": "RELOAD", "kind": "dora"}
                if operator is not None:
                    event["id"] = operator
                self._first.append(event)
            case messages.RemoveInput(name):
                if (entry := self.inputs.get(name)) is not None:
                    self._first.extend(self._close(entry))
                    self.remove_input(name)
            case messages.UnknownMessage():
                self._first.append({"type": "UNKNOWN", "kind": "dora"})
            case _:
                self.failed(f"unexpected message {type(message).__name__} of the runner")

    def stop(self, reason: str) -> None:
        """Queue STOP, which ends the stream. Only the first reason counts."""
        if self.stopping is None:
            self.stopping = reason
            self._first.append({"type": "STOP", "id": reason, "kind": "dora"})

    def failed(self, problem: str) -> None:
        """Queue an ERROR event for a broken message."""
        self._first.append({"type": "ERROR", "error": problem, "kind": "dora"})

    # --- coming out ------------------------------------------------------------------------------

    def next_event(self, now: int) -> Event | None:
        """Return the next event; None if nothing waits or the stream ended. Never blocks."""
        while not self.ended:
            if self._first:
                event = self._first[0]
                self.ended = event["type"] == "STOP"
                del self._first[0]
                return event
            for entry in self._order:
                found = self._look(entry, now)
                if found is not None:
                    return found
                if self._first:
                    break
            else:
                if not (self._timed and self._break_silent_inputs(now)):
                    return None
        return None

    def next_of(self, name: str, now: int) -> Event | None:
        """Return the next event of this input after a wait that it alone has ended.

        None: call `next_event`, which may return one. Never blocks.
        """
        entry = self.inputs.get(name)
        if entry is None or entry.held or self._first or self.ended:
            return None
        return self._look(entry, now, woken=True)

    def _look(self, entry: InputState, now: int, *, woken: bool = False) -> Event | None:
        """Return the next event of one input, or None; events in `_first` come before it."""
        if (poll := entry.poll) is None:
            return self._next_tick(entry, now)
        delivery = entry.held
        if delivery is None:
            if self._several and not woken and entry.ready is not None and not entry.ready():
                return None
            self.taking = True
            try:
                delivery = poll()
            except BrokenRecord as error:
                self.failed(f"input `{entry.id}`: {error}")
                self.taking = False
                return None
            if delivery is None:
                self.taking = False
                return None
        else:
            self.taking = True
            entry.held = None
        event: Event | None = None
        try:
            if delivery.kind is _DATA:
                if entry.broken:
                    entry.broken = False
                    entry.held = delivery
                    self.taking = False
                    return {"type": "INPUT_RECOVERED", "id": entry.id, "kind": "dora"}
                event = {
                    "type": "INPUT",
                    "id": entry.id,
                    "value": delivery.value,
                    "metadata": delivery.metadata,
                    "kind": "dora",
                }
                if entry.timed:
                    sent = delivery.sent_ns or now
                    if entry.corrected:
                        wall = delivery.timestamp_ns
                        offset = entry.offset.add(sent - wall, now)
                        event["captured_ns"] = offset + (captured_ns(event["metadata"]) or wall)
                    if entry.timeout is not None:
                        # The timeout counts from the send: time in the queue must not extend it.
                        entry.deadline = min(now, sent) + entry.timeout
            else:
                self._first.extend(self._lifecycle(entry, delivery))
        except DECODE_ERRORS as error:
            self.failed(f"input `{entry.id}`: {error}")
        if self._several:
            self._served(entry)
        self.taking = False
        return event

    def deadline(self) -> int | None:
        """Return when `next_event` will have an event although nothing arrives; None: never."""
        if not self._timed or self.ended:
            return None
        times = []
        for entry in self._order:
            if entry.interval is not None:
                if self._epoch is not None:
                    times.append(self._epoch + entry.tick * entry.interval)
            elif entry.deadline is not None and entry.open:
                times.append(entry.deadline)
        return min(times, default=None)

    def waiting(self, now: int) -> bool:
        """Whether an event is ready without looking into the queues."""
        if self._first:
            return True
        return any(
            entry.held is not None
            or (entry.interval is not None and self._due(entry, now) >= entry.tick)
            for entry in self._order
        )

    # --- one input -------------------------------------------------------------------------------

    def _look_at_inputs(self) -> None:
        self._several = len(self._order) > 1
        self._timed = any(e.interval is not None or e.timeout is not None for e in self._order)

    def _served(self, entry: InputState) -> None:
        order = self._order
        if order[-1] is not entry:
            order.remove(entry)
            order.append(entry)

    def _due(self, entry: InputState, now: int) -> int:
        """Return the number of a timer's last due tick; -1 before the first."""
        if self._epoch is None or entry.interval is None or not entry.open:
            return -1
        return (now - self._epoch) // entry.interval

    def _next_tick(self, entry: InputState, now: int) -> Event | None:
        due = self._due(entry, now)
        if due < entry.tick or entry.interval is None or self._epoch is None:
            return None
        oldest = due - max(1, entry.config.queue_size) + 1
        if entry.tick < oldest:
            entry.tick = oldest
        late = now - (self._epoch + entry.tick * entry.interval)
        stamp = self._wall_time(late)
        event = Tick(type="INPUT", id=entry.id, metadata={"timestamp": stamp}, kind="dora")
        if entry.corrected:
            event["captured_ns"] = now - late
        self._served(entry)
        entry.tick += 1
        return event

    def _break_silent_inputs(self, now: int) -> bool:
        """Queue INPUT_CLOSED for inputs whose timeout passed; their queues are empty."""
        silent = [
            entry
            for entry in self._order
            if entry.deadline is not None and entry.deadline <= now and entry.open
        ]
        for entry in silent:
            entry.deadline = None
            entry.broken = True
            self._first.append({"type": "INPUT_CLOSED", "id": entry.id, "kind": "dora"})
        return bool(silent)

    # --- lifecycle -------------------------------------------------------------------------------

    def _lifecycle(self, entry: InputState, delivery: Delivery) -> Iterable[Event]:
        """Return the events of a lifecycle record.

        Each queue of a producer has its NODE_RESTARTED and NODE_FAILED, after that queue's own
        messages. The user gets one event, from the first queue that has it.
        """
        if delivery.kind is RecordKind.CLOSED:
            return self._close(entry)
        node = entry.config.source_node or ""
        if delivery.kind is RecordKind.NODE_RESTARTED:
            entry.offset.reset()
            entry.restarts += 1
            if entry.restarts <= self._restarted.get(node, 0):
                return ()
            self._restarted[node] = entry.restarts
            return ({"type": "NODE_RESTARTED", "id": node, "kind": "dora"},)
        entry.failures += 1
        if entry.failures <= self._failed.get(node, 0):
            return ()
        self._failed[node] = entry.failures
        affected = [e.id for e in self.inputs.values() if e.config.source_node == node]
        value = {
            "source_node_id": node,
            "error": delivery.error,
            "affected_input_ids": affected,
        }
        return ({"type": "NODE_FAILED", "id": node, "value": value, "kind": "dora"},)

    def _close(self, entry: InputState) -> list[Event]:
        if not entry.open:
            return []
        events: list[Event] = []
        if not entry.broken:  # otherwise reported already
            events.append({"type": "INPUT_CLOSED", "id": entry.id, "kind": "dora"})
        if self.config.operators:  # only for their host; an input that timed out is still open
            events.append({"type": "INPUT_ENDED", "id": entry.id, "kind": "dora"})
        if self._is_last(entry):
            self.stopping = "ALL_INPUTS_CLOSED"
            events.append({"type": "STOP", "id": self.stopping, "kind": "dora"})
        entry.open = False
        entry.deadline = None
        entry.broken = False
        return events

    def _is_last(self, entry: InputState) -> bool:
        """Whether no other input is open; one that only timed out is.

        With `exit_when_nodes_finish` only inputs that read an output count.
        """
        if self.stopping is not None:
            return False
        inputs = list(self.inputs.values())
        if self.config.exit_when_nodes_finish:
            inputs = [e for e in inputs if e.config.source_kind == "output"]
        return not any(other.open for other in inputs if other is not entry)
