"""What a node's user is told, and in which order; pure: no socket, no pipe, no clock.

Control messages and the records of the inputs go in, event dictionaries come out. The rules:

- what comes over the control socket (STOP, parameters, reload) goes first, so it may overtake data;
- among inputs with something waiting, the one served least recently is next, so none starves;
- within an input everything keeps its order: the news that it closed follows its last message;
- after STOP the stream is at its end.

Times are nanoseconds of CLOCK_MONOTONIC, passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from dora_node_api.frozen import Frozen
from dora_node_api.protocol.messages import (
    AddInput,
    InputConfig,
    NodeConfig,
    ParamDeleted,
    ParamUpdate,
    Reload,
    RemoveInput,
    Stop,
    UnknownMessage,
)
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.layout import RecordKind

if TYPE_CHECKING:
    from dora_node_api.transport.consumer.delivery import Delivery

Event = dict[str, Any]
"""An event as users get it: a plain dictionary with the keys that apply."""

Poll = Callable[[], "Delivery | None"]
"""Takes the next record of one input; None if nothing waits. Never blocks."""

Ready = Callable[[], bool]
"""Whether it is worth polling an input: a glance that costs no system call."""

DECODE_ERRORS = (BrokenRecord, ValueError, TypeError, LookupError, OverflowError)
"""What a record may raise that is not what its sender wrote: an ERROR event, never a crash."""

# Enum attribute look-ups cost more than the comparison they serve.
_DATA = int(RecordKind.DATA)
_CLOSED = int(RecordKind.CLOSED)
_NODE_RESTARTED = int(RecordKind.NODE_RESTARTED)
_NODE_FAILED = int(RecordKind.NODE_FAILED)


class Input:
    """One input as the session sees it."""

    __slots__ = (
        *("broken", "config", "deadline", "failures", "held", "id", "interval", "open", "poll"),
        *("ready", "restarts", "skipped", "tick", "timeout"),
    )

    def __init__(self, config: InputConfig, poll: Poll | None, ready: Ready | None) -> None:
        self.id = config.id
        self.config = config
        self.poll = poll
        self.ready = ready
        self.held: Delivery | None = None
        """A record that was taken but did not become an event: an exception came between."""
        self.open = True
        self.broken = False
        """Nothing came for `input_timeout`: closed for the user, not for good."""
        self.interval = config.interval_ns if config.source_kind == "timer" else None
        self.tick = 0
        """Of a timer: number of the next tick."""
        self.skipped = 0
        self.timeout = None if config.input_timeout is None else int(config.input_timeout * 1e9)
        self.deadline: int | None = None
        """When the input breaks; None until its first message."""
        self.restarts = 0
        self.failures = 0


class Session:
    """The order of events of one node. `next_event` is the one way out."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        null_array: Callable[[], Any],
        wall_time: Callable[[int], Any],
    ) -> None:
        """`null_array()` is the value of a tick, `wall_time(ns)` the date that lies `ns` back."""
        self.config = config
        self.inputs: dict[str, Input] = {}
        self._order: list[Input] = []
        """Least recently served first."""
        self._several = False
        self._timed = False
        self._first: deque[Event] = deque()
        """What goes before everything that waits at inputs."""
        self.returned: Event | None = None
        """An event that was taken but did not reach the user: it comes first next time. Set it by a
        plain store: in a call another signal handler could raise."""
        self._null_array = null_array
        self._wall_time = wall_time
        self._epoch: int | None = None
        self._restarted: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self.stopping: str | None = None
        """Reason of the STOP that was or will be handed out."""
        self.ended = False
        """STOP was handed out: nothing follows."""
        self.errors = 0
        """Broken records and undecodable messages so far."""

    # --- going in --------------------------------------------------------------------------------

    def add_input(
        self, config: InputConfig, poll: Poll | None = None, ready: Ready | None = None
    ) -> None:
        """Connect an input; one that exists already gets the new source. `poll` None: a timer."""
        self.remove_input(config.id)
        entry = Input(config, poll, ready)
        node = config.source_node or ""
        entry.restarts = self._restarted.get(node, 0)
        entry.failures = self._failed.get(node, 0)
        self.inputs[config.id] = entry
        self._order.append(entry)
        self._look_at_inputs()

    def remove_input(self, name: str) -> None:
        """Forget an input without a word to the user."""
        if (entry := self.inputs.get(name)) is not None:
            # All may be repeated when a signal handler has raised.
            self._order = [other for other in self._order if other is not entry]
            self._look_at_inputs()
            del self.inputs[name]

    def start(self, epoch: int) -> None:
        """The dataflow runs: timers tick from `epoch` on."""
        self._epoch = epoch

    def handle(self, message: Frozen) -> None:
        """Take in a message of the runner that concerns the user."""
        match message:
            case Stop(reason):
                self.stop(reason)
            case ParamUpdate(key, value):
                self._first.append(
                    {"type": "PARAM_UPDATE", "id": key, "value": value, "kind": "dora"}
                )
            case ParamDeleted(key):
                self._first.append({"type": "PARAM_DELETED", "id": key, "kind": "dora"})
            case Reload(operator):
                event: Event = {"type": "RELOAD", "kind": "dora"}
                if operator is not None:
                    event["id"] = operator
                self._first.append(event)
            case RemoveInput(name):
                if (entry := self.inputs.get(name)) is not None:
                    self._first.extend(self._close(entry))
                    self.remove_input(name)
            case UnknownMessage():
                self._first.append({"type": "UNKNOWN", "kind": "dora"})
            case AddInput():
                raise ValueError("an input is added with add_input, which takes its queue")
            case _:
                self.failed(f"the runner sent {type(message).__name__}, which was not expected")

    def stop(self, reason: str) -> None:
        """Hand out STOP next and end the stream after it. Only the first reason counts."""
        if self.stopping is None:
            self.stopping = reason
            self._first.append({"type": "STOP", "id": reason, "kind": "dora"})

    def failed(self, problem: str) -> None:
        """Something arrived that was broken: counted, and told as an ERROR event."""
        self.errors += 1
        self._first.append({"type": "ERROR", "error": problem, "kind": "dora"})

    # --- coming out ------------------------------------------------------------------------------

    def next_event(self, now: int) -> Event | None:
        """The next event; None if nothing waits or the stream is at its end. Never blocks.

        An exception that a signal handler raises in here loses nothing.
        """
        event = self.returned
        if event is not None:
            self.returned = None
            return event
        while not self.ended:
            if self._first:
                # Not popleft: a signal handler may raise between a call and the use of its result.
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

    def _look(self, entry: Input, now: int) -> Event | None:
        """The next event of one input. What it adds to `_first` comes before anything else."""
        if (poll := entry.poll) is None:
            return self._next_tick(entry, now)
        delivery = entry.held
        if delivery is None:
            if self._several and entry.ready is not None and not entry.ready():
                return None
            try:
                delivery = poll()
            except BrokenRecord as error:
                self.failed(f"input `{entry.id}`: {error}")
                return None
            if delivery is None:
                return None
            entry.held = delivery
        try:
            if delivery.kind == _DATA:
                if entry.broken:
                    event = {"type": "INPUT_RECOVERED", "id": entry.id, "kind": "dora"}
                    entry.broken = False
                    return event  # the message is held, and comes with the next call
                event = self._message(entry, delivery, now)
            else:
                event = None
                news = self._lifecycle(entry, delivery)
                entry.held = None  # and no call before they are kept: told once
                self._first.extend(news)
        except DECODE_ERRORS as error:
            event = None
            self.failed(f"input `{entry.id}`: {error}")
        if self._several:
            self._served(entry)
        entry.held = None
        return event

    def deadline(self) -> int | None:
        """When `next_event` has something to say though nothing arrives; None: never."""
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
        """Whether an event is certain without looking into the queues."""
        if self.returned is not None or self._first:
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

    def _served(self, entry: Input) -> None:
        order = self._order
        if order[-1] is not entry:
            # One store: after a removal a signal handler could raise, and the input be forgotten.
            at = order.index(entry)
            order[at:] = [*order[at + 1 :], entry]

    def _message(self, entry: Input, delivery: Delivery, now: int) -> Event:
        event: Event = {
            "type": "INPUT",
            "id": entry.id,
            "value": delivery.value,
            "metadata": delivery.metadata,
            "kind": "dora",
        }
        if entry.timeout is None:
            return event
        # A message that waited here was no silence; one that was sent long ago was.
        entry.deadline = min(now, delivery.sent_ns or now) + entry.timeout
        return event

    def _due(self, entry: Input, now: int) -> int:
        """Number of the last tick of a timer that is due; -1 before the first."""
        if self._epoch is None or entry.interval is None or not entry.open:
            return -1
        return (now - self._epoch) // entry.interval

    def _next_tick(self, entry: Input, now: int) -> Event | None:
        due = self._due(entry, now)
        if due < entry.tick or entry.interval is None or self._epoch is None:
            return None
        oldest = due - max(1, entry.config.queue_size) + 1
        if entry.tick < oldest:
            entry.skipped += oldest - entry.tick
            entry.tick = oldest
        late = now - (self._epoch + entry.tick * entry.interval)
        event: Event = {
            "type": "INPUT",
            "id": entry.id,
            "value": self._null_array(),
            "metadata": {"timestamp": self._wall_time(late)},
            "kind": "dora",
        }
        self._served(entry)
        entry.tick += 1
        return event

    def _break_silent_inputs(self, now: int) -> bool:
        """INPUT_CLOSED for inputs whose timeout passed. Their queues were seen empty just now."""
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

    # --- what ends -------------------------------------------------------------------------------

    def _lifecycle(self, entry: Input, delivery: Delivery) -> Iterable[Event]:
        """What the user hears. Nothing is called between the first store and the return, so that
        it counts once, whatever a signal handler raises."""
        kind = int(delivery.kind)
        if kind == _CLOSED:
            return self._close(entry)
        node = entry.config.source_node or ""
        # The news lies in the queue of every input that this producer feeds, after that input's
        # own messages. The user hears it once, from whichever queue has it first.
        if kind == _NODE_RESTARTED:
            known = self._restarted.get(node, 0)
            entry.restarts += 1
            if entry.restarts <= known:
                return ()
            self._restarted[node] = entry.restarts
            return ({"type": "NODE_RESTARTED", "id": node, "kind": "dora"},)
        if kind == _NODE_FAILED:
            news = (self._node_failed(node, delivery),)
            known = self._failed.get(node, 0)
            entry.failures += 1
            if entry.failures <= known:
                return ()
            self._failed[node] = entry.failures
            return news
        self.failed(f"input `{entry.id}`: a record of the unknown kind {kind}")
        return ()

    def _node_failed(self, node: str, delivery: Delivery) -> Event:
        affected = [e.id for e in self.inputs.values() if e.config.source_node == node]
        return {
            "type": "NODE_FAILED",
            "id": node,
            "value": {
                "source_node_id": node,
                "error": delivery.error,
                "affected_input_ids": affected,
            },
            "kind": "dora",
        }

    def _close(self, entry: Input) -> list[Event]:
        if not entry.open:
            return []
        news: list[Event] = []
        if not entry.broken:  # else it was told
            news.append({"type": "INPUT_CLOSED", "id": entry.id, "kind": "dora"})
        is_last = self._is_last(entry)
        if is_last:
            news.append({"type": "STOP", "id": "ALL_INPUTS_CLOSED", "kind": "dora"})
        # Only stores from here on, see `_lifecycle`.
        entry.open = False
        entry.deadline = None
        entry.broken = False
        if is_last:
            self.stopping = "ALL_INPUTS_CLOSED"
        return news

    def _is_last(self, entry: Input) -> bool:
        """No other can bring anything any more. What timed out only may; timers always do."""
        if self.stopping is not None:
            return False
        inputs = list(self.inputs.values())
        if self.config.exit_when_nodes_finish:
            inputs = [e for e in inputs if e.config.source_kind == "output"]
        return not any(other.open for other in inputs if other is not entry)
