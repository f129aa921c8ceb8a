"""Delivery of one entering stream: validates messages and pushes them into the local queues."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal

from dora_daemon.link.protocol.clocks import ClockOffset
from dora_daemon.link.protocol.frames import LifecycleEvent
from dora_daemon.link.protocol.messages import SourceEvent, ToRunner
from dora_daemon.link.streams.assembly import Assembly
from dora_daemon.link.streams.images import ImageMessage
from dora_daemon.link.streams.validation import is_plain, problem_with
from dora_node_api.frozen import Frozen
from dora_node_api.transport import RecordKind
from dora_node_api.transport.producer.blocks import Hold
from dora_node_api.transport.producer.forwarding import Forwarder

VALIDATED_AT_ONCE: Final = 1024 * 1024
"""Largest message that the receiving thread pushes although its validation takes time, in bytes."""
Event = Literal["closed", "restarted", "failed"]
_EVENTS: Final[dict[RecordKind, Event]] = {
    RecordKind.CLOSED: "closed",
    RecordKind.NODE_RESTARTED: "restarted",
    RecordKind.NODE_FAILED: "failed",
}


class SourceEnded:
    """The source's part has ended and does not restart; its link may not have sent an event."""


class NewRun(Frozen):
    """The source's part was started anew."""

    run_id: str


Item = ImageMessage | LifecycleEvent | Assembly | SourceEnded | NewRun
"""What a stream delivers, in order."""


class LocalDelivery:
    """Pushes what one output of one machine sends. Used by one thread at a time."""

    def __init__(
        self,
        machine: str,
        node: str,
        output: str,
        forwarder: Forwarder,
        clock: ClockOffset,
        *,
        send: Callable[[ToRunner], None],
        note: Callable[[str], None],
    ) -> None:
        """``send``, ``note``: report to the runner and to its log."""
        self.clock = clock
        self.invalid = 0
        """Messages that were not valid Arrow data."""
        self._machine = machine
        self._node = node
        self._output = output
        self._route = f"{node}/{output}"
        self._forwarder = forwarder
        self._send = send
        self._note = note

    def push_at_once(self, sequence: int, item: Item) -> int | None:
        """Push on the receiving thread; return the size in bytes, None if that would have to wait.

        Raises OSError.
        """
        if isinstance(item, Assembly):
            return self._push_assembly_at_once(sequence, item)
        if not isinstance(item, ImageMessage):
            return None
        if item.problem is not None:
            self._reject(sequence, item.problem)
        elif not self._forwarder.forward_image(
            self._route,
            item.image,
            source=sequence,
            sent_ns=self._to_our_time(item.sent_ns),
            flags=item.flags,
        ):
            return None
        return item.size

    def _push_assembly_at_once(self, sequence: int, assembly: Assembly) -> int | None:
        parts = assembly.data.parts
        quick = parts.nbytes <= VALIDATED_AT_ONCE or is_plain(parts)
        if not assembly.at_once or not quick or not self._forwarder.has_room(self._route):
            return None
        problem = problem_with(parts, assembly.target)
        if problem is not None:
            self._reject(sequence, problem)
        else:
            data, hold = assembly.data, assembly.hold
            assert hold is not None
            if not self._forward(sequence, hold, parts.total, data.sent_ns, data.flags, wait=False):
                return None
            assembly.target = None
        return parts.nbytes

    def push_image(self, sequence: int, item: ImageMessage) -> None:
        """Push a small message; wait for full queues. Raises PoolExhausted."""
        if item.problem is not None:
            self._reject(sequence, item.problem)
            return
        total = item.image.total
        hold = self._forwarder.allocate(self._route, total)
        self._forwarder.fill_image(hold, item.image)
        self._forward(sequence, hold, total, item.sent_ns, item.flags)

    def push_filled(self, sequence: int, assembly: Assembly) -> None:
        """Push a large message whose block is filled; wait for full queues."""
        assert assembly.hold is not None
        problem = problem_with(assembly.data.parts, assembly.target)
        if problem is not None:
            self._reject(sequence, problem)
            return
        assembly.target = None
        data = assembly.data
        self._forward(sequence, assembly.hold, data.parts.total, data.sent_ns, data.flags)

    def push_event(self, sequence: int, item: LifecycleEvent) -> bool:
        """Push and report a lifecycle event; return False if it must be tried again."""
        if not self._forwarder.announce(self._route, item.kind, item.error, source=sequence):
            return False
        self.report(_EVENTS[item.kind], item.error)
        return True

    def close(self) -> bool:
        """Push and report the end of the source; return False if it must be tried again."""
        if not self._forwarder.announce(self._route, RecordKind.CLOSED):
            return False
        self.report("closed")
        return True

    def report(self, event: Event, error: str = "") -> None:
        """Report an event of the source to the runner."""
        self._send(
            SourceEvent(
                machine=self._machine,
                node=self._node,
                output=self._output,
                event=event,
                error=error,
            )
        )

    def _to_our_time(self, their_monotonic: int) -> int:
        return self.clock.to_ours(their_monotonic, time.monotonic_ns())

    def _forward(
        self, sequence: int, hold: Hold, total: int, sent_ns: int, flags: int, *, wait: bool = True
    ) -> bool:
        return self._forwarder.forward(
            self._route,
            hold,
            total,
            source=sequence,
            sent_ns=self._to_our_time(sent_ns),
            flags=flags,
            wait=wait,
        )

    def _reject(self, sequence: int, problem: str) -> None:
        self.invalid += 1
        self._forwarder.skip(self._route, sequence)
        self._note(
            f"{self._route} from {self._machine}: dropped message {sequence}, which is not valid"
            f" Arrow data: {problem}"
        )
