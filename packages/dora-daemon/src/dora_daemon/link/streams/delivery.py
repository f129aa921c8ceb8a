"""Delivery of one entering stream: validates messages and pushes them into the local queues."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal

from dora_daemon.link.codecs.coded import NotDecoded
from dora_daemon.link.codecs.decoding import NoReference, StreamDecoder
from dora_daemon.link.protocol.clocks import ClockOffset
from dora_daemon.link.protocol.frames import LifecycleEvent
from dora_daemon.link.protocol.messages import SourceEvent, ToRunner
from dora_daemon.link.streams.assembly import Assembly
from dora_daemon.link.streams.images import ImageMessage
from dora_daemon.link.streams.validation import is_plain
from dora_node_api.frozen import FrozenRecord
from dora_node_api.transport.producer.blocks import Hold
from dora_node_api.transport.producer.forwarding import Forwarder
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.payload import BlockImage

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


class NewRun(FrozenRecord):
    """The source's part was restarted."""

    run_id: str


Item = ImageMessage | LifecycleEvent | Assembly | SourceEnded | NewRun
"""Items that a stream delivers, in order."""


class LocalDelivery:
    """Pushes the messages of one output of one machine. Used by one thread at a time."""

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
        self.undecoded = 0
        """Compressed messages that could not be restored."""
        self._decoder = StreamDecoder()
        self._waits_for_key = False
        self._machine = machine
        self._node = node
        self._output = output
        self._route = f"{node}/{output}"
        self._forwarder = forwarder
        self._send = send
        self._note = note

    def push(self, sequence: int, item: ImageMessage | Assembly, *, wait: bool) -> bool:
        """Push a message, whose block is filled if it is large.

        Without ``wait``, on the receiving thread: False if it would have to wait, or takes long.
        Raises OSError, and PoolExhausted with ``wait``.
        """
        message: BlockImage | Hold
        if isinstance(item, ImageMessage):
            message, total, problem = item, item.total, item.problem
        else:
            parts = item.data.parts
            quick = item.at_once and (parts.nbytes <= VALIDATED_AT_ONCE or is_plain(parts))
            if not wait and (not quick or item.data.coded):
                return False
            assert item.hold is not None
            message, total, problem = item.hold, parts.total, item.validate()
        if problem is not None:
            self._reject(sequence, problem)
            return True
        sent_ns = self.clock.to_ours(item.sent_ns, time.monotonic_ns())
        return self._forwarder.forward(
            self._route, message, total, sequence, sent_ns, item.flags, wait=wait
        )

    def push_coded(self, sequence: int, item: Assembly) -> None:
        """Restore a compressed message and push it. Raises OSError and PoolExhausted."""
        if item.hold is None:
            coded = item.target
            assert coded is not None
            try:
                parts = item.data.parts.resized(self._decoder.size_of(coded))
                hold = self._forwarder.allocate(self._route, parts.total)
                target = self._forwarder.fill_head(hold, parts)
                self._decoder.decode(sequence, coded, target)
            except NotDecoded as error:
                self._drop_coded(sequence, error)
                return
            self._waits_for_key = False
            item.data.parts = parts
            item.fill(hold, target)
        self.push(sequence, item, wait=True)

    def _drop_coded(self, sequence: int, error: NotDecoded) -> None:
        """Drop a message, with one line for all pictures up to the next key frame."""
        self.undecoded += 1
        self._forwarder.skip(self._route, sequence)
        if isinstance(error, NoReference):
            if self._waits_for_key:
                return
            self._waits_for_key = True
        self._note(
            f"{self._route} from {self._machine}: dropped message {sequence}, which cannot be"
            f" decompressed: {error}"
        )

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

    def _reject(self, sequence: int, problem: str) -> None:
        self.invalid += 1
        self._forwarder.skip(self._route, sequence)
        self._note(
            f"{self._route} from {self._machine}: dropped message {sequence}, which is not valid"
            f" Arrow data: {problem}"
        )
