"""A node's connection to its runner: control messages, routes and segments.

Any thread may send, one at a time receives. A thread that finds the control socket readable takes
in its messages (`pump`): routes and answers are processed at once; messages that concern the inputs
or the user wait in the inbox for the receiving thread.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from dora_node_api.errors import BackpressureDeadlock, ControlClosed, ControlError, ExtensionError
from dora_node_api.protocol import messages
from dora_node_api.protocol.control_socket import ControlSocket
from dora_node_api.protocol.extensions import Extensions
from dora_node_api.protocol.frames import ReceivedFrame, close_all
from dora_node_api.transport.consumer.delivery import MappedSegment
from dora_node_api.transport.producer.pool import Pool, pool_size
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.interruption import Calls, Integrity, OwnedLock, interrupting
from dora_node_api.transport.shared.memory import map_memory
from dora_node_api.transport.shared.queue import QueueEnds
from dora_node_api.transport.shared.specs import QueueSpec

PUMP_EVERY_NS = 2_000_000
"""A busy node looks at its control socket this often: STOP takes at most 2 ms longer."""
ANSWER_TIMEOUT = 10.0
"""Seconds the runner may take to answer a request."""
DEADLOCK_AFTER = 5.0
"""Seconds a sender waits on a cycle of full backpressure queues before it gives up."""


class ConnectionToRunner:
    """The control socket and what depends on it: board, pool, sender."""

    def __init__(
        self, control: ControlSocket, welcome: messages.Welcome, board_fd: int, segment_fd: int = -1
    ) -> None:
        """``segment_fd``: of the pool's first segment."""
        self.config: messages.NodeConfig = welcome.config
        self.board = Board.attach(board_fd, welcome.board_size)
        self.integrity = Integrity()
        """Broken once an exception of a signal handler has ended a call of the node halfway."""
        self.inbox: deque[ReceivedFrame | ControlError] = deque()
        self.sent = False
        """Whether the node has sent a message since its last wait."""
        self.pumped = 0
        """CLOCK_MONOTONIC ns of the last look at the control socket."""
        self.stopped = False
        """Whether the runner stops this node, or its connection has ended."""
        self.inputs_full: Callable[[], bool] = lambda: False
        """Whether every backpressure input of this node is full; set by the receiving side."""
        self.publish: Callable[[messages.SendOutput], None] = lambda message: None
        """Sends a message that was published through the runner; set by the sending side."""
        self.calls = Calls()
        self._to_publish: deque[messages.SendOutput] = deque()
        self._publishing = OwnedLock()
        self._control = control
        self._pumping = OwnedLock()
        self.extensions = Extensions(self._use_extension, self.pump)
        self._awaited = 0
        """Number of the last request; answers to earlier ones are dropped."""
        self._answer: ReceivedFrame | None = None
        self._warned: set[str] = set()
        self.gone = False
        """Whether the control socket is unusable."""
        self._waits = threading.local()
        # `wake` ends one wait of the receiving thread. `halt` stays readable once the node is to
        # stop, so that it ends the waits of all senders.
        self.wake_read, self._wake_write = os.pipe()
        self._halt_read, self._halt_write = os.pipe()
        for descriptor in (self.wake_read, self._wake_write, self._halt_write):
            os.set_blocking(descriptor, False)
        self.sender = Sender(
            Pool(
                pool_size(self.config.pool_size),
                self._register_segment,
                (segment_fd, welcome.segment_size) if segment_fd >= 0 else None,
            ),
            self.board,
            welcome.incarnation,
            wait_for_room=self._wait_for_room,
            on_first_drop=self._warn_of_drop,
            integrity=self.integrity,
        )

    def fileno(self) -> int:
        """Return the descriptor of the control socket."""
        return self._control.fileno()

    # --- messages to the runner ------------------------------------------------------------------

    def send(self, message: messages.Message, descriptors: tuple[int, ...] = ()) -> None:
        """Send a message; ignored once the runner is gone."""
        try:
            self._control.send(message, descriptors)
        except ControlClosed:
            self._lost()

    def warn(self, sentence: str, fields: dict[str, str] | None = None) -> None:
        """Log a warning of this library, once."""
        if sentence not in self._warned:
            self._warned.add(sentence)
            log = messages.Log(
                level="warn", message=sentence, target="dora_node_api", fields=fields
            )
            self.send(log)

    def _warn_of_drop(self, spec: QueueSpec, sentence: str) -> None:
        # An inspector reports its own losses, and has no `queue_size` to set.
        if spec.consumer != messages.INSPECTOR:
            self.warn(sentence, {"edge": spec.edge})

    def _register_segment(self, number: int, descriptor: int, size: int) -> None:
        self.send(messages.AddSegment(number=number, size=size), (descriptor,))

    # --- messages from the runner ----------------------------------------------------------------

    def pump(self, *, wait: bool = True) -> None:
        """Take in the messages on the control socket, and send what is to be published.

        With `wait` False: only if no other thread does.
        """
        if wait:
            with self._pumping:
                self._take_all()
        else:
            self._pumping.run_if_free(self._take_all)
        if self._to_publish:
            self._publishing.run_if_free(self._publish_all)

    def _publish_all(self) -> None:
        # One at a time, in order: sending looks at the control socket, too.
        while self._to_publish:
            self.publish(self._to_publish.popleft())

    def _take_all(self) -> None:
        with self.integrity:
            while (received := self._receive()) is not None:
                self._take(received)
        self.pumped = time.monotonic_ns()

    def _receive(self) -> ReceivedFrame | None:
        if self.gone:
            return None
        try:
            return self._control.receive(timeout=0)
        except ControlError as error:
            if not isinstance(error, ControlClosed):
                self._to_inbox(error)  # before the STOP that ends the stream
            self._lost()
            return None

    def _take(self, received: ReceivedFrame) -> None:
        match received.message:
            case messages.AddRoute(output, spec):
                self.add_route(output, spec, received.descriptors)
            case messages.RemoveRoute(queue):
                self.sender.remove_route(queue)
            case (
                messages.SegmentFd(request)
                | messages.SegmentUnknown(request)
                | messages.ExtensionAnswer(request)
            ):
                if request == self._awaited:
                    self._answer = received
                else:
                    close_all(received.descriptors)
            case messages.ExtensionDropped(namespace, key):
                self.extensions.note(namespace, key)
            case messages.SendOutput() as message:
                self._to_publish.append(message)
                self.wake()
            case messages.StopNode(restarts=restarts):
                if not restarts:
                    self.halt()
                self._to_inbox(received)
            case _:
                self._to_inbox(received)

    def add_route(self, output: str, spec: QueueSpec, descriptors: tuple[int, ...]) -> None:
        """Send `output` to this queue too."""
        self.sender.add_route(output, spec, QueueEnds.from_producer_fds(descriptors))

    def _to_inbox(self, received: ReceivedFrame | ControlError) -> None:
        self.inbox.append(received)
        self.wake()

    def wake(self) -> None:
        """Make the receiving thread look again. Usable in a signal handler."""
        with suppress(OSError):
            os.write(self._wake_write, b"w")

    def clear_wake(self) -> None:
        """Clear old wake-ups; the receiving thread calls it before it looks."""
        with suppress(OSError):
            os.read(self.wake_read, 4096)

    def halt(self) -> None:
        """Stop waiting for room: the node is to end."""
        self.stopped = True
        with suppress(OSError):
            os.write(self._halt_write, b"h")

    def _lost(self) -> None:
        """Note that the runner is gone: the node is to stop."""
        if not self.gone:
            self.gone = True
            self.halt()
            self._to_inbox(ReceivedFrame(messages.StopNode("MANUAL")))

    def add_segment(self, segment: messages.SourceSegment, descriptor: int) -> None:
        """Map the segment of a source; takes over the descriptor."""
        try:
            memory = map_memory(descriptor, segment.size, writable=False)
            key = (segment.incarnation, segment.number)
            self.board.segments[key] = MappedSegment(memory, segment.size)
        except (OSError, ValueError):
            pass  # the first message that needs the segment requests it and reports an error
        finally:
            os.close(descriptor)

    # --- requests to the runner ------------------------------------------------------------------

    def open_segment(self, incarnation: int, number: int) -> tuple[int, int]:
        """Return descriptor and size of a segment. Raises LookupError if it no longer exists."""
        answer = self._request(lambda request: messages.OpenSegment(request, incarnation, number))
        if answer is None:
            raise LookupError("the runner does not answer for a segment")
        if isinstance(answer.message, messages.SegmentFd) and len(answer.descriptors) == 1:
            return answer.descriptors[0], answer.message.size
        close_all(answer.descriptors)
        raise LookupError(f"segment {number} of incarnation {incarnation} no longer exists")

    def _use_extension(self, action: str, namespace: str, key: str, value: bytes) -> bytes | None:
        from binascii import a2b_base64, b2a_base64

        if self._pumping.owned():
            raise interrupting()
        text = b2a_base64(value, newline=False).decode()
        answer = self._request(lambda n: messages.ExtensionRequest(n, action, namespace, key, text))
        if answer is None or not isinstance(answer.message, messages.ExtensionAnswer):
            raise ExtensionError(
                f"cannot {action} extension key `{namespace}/{key}`: the runner does not answer"
            )
        if answer.message.problem is not None:
            raise ExtensionError(answer.message.problem)
        return None if answer.message.value is None else a2b_base64(answer.message.value)

    def _request(self, message: Callable[[int], messages.Message]) -> ReceivedFrame | None:
        """Send a request with a number, and return its answer; None without one."""
        with self._pumping:
            self._drop_answer()
            self._awaited += 1
            self.send(message(self._awaited))
            deadline = time.monotonic() + ANSWER_TIMEOUT
            while self._answer is None:
                left = deadline - time.monotonic()
                if left <= 0 or self.gone:
                    return None
                self.integrity.wait(partial(self._control.wait, left))
                self._take_all()
            answer, self._answer = self._answer, None
        return answer

    def _drop_answer(self) -> None:
        """Close the descriptors of an answer that came too late."""
        answer, self._answer = self._answer, None
        if answer is not None:
            close_all(answer.descriptors)

    # --- backpressure ----------------------------------------------------------------------------

    def _wait_for_room(self, spec: QueueSpec, descriptor: int, timeout: float) -> bool:
        """Wait until a full queue may have room; False: give up the message on this edge."""
        started = self._blocked_since(spec)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._halt_read, select.POLLIN)
        if not self.gone:
            poll.register(self._control.fileno(), select.POLLIN)
        ready = dict(poll.poll(min(timeout, 1.0) * 1000))
        if self._control.fileno() in ready and not self.gone:
            with self._pumping:
                self._take_all()
        if self.stopped:
            return False
        if descriptor not in ready:
            self._check_deadlock(spec, started)
        return True

    def _blocked_since(self, spec: QueueSpec) -> float:
        """Return when this thread's present wait for this queue began."""
        now = time.monotonic()
        queue, began, last = getattr(self._waits, "latest", (None, now, now))
        if queue != spec.queue or now - last > 1.5:
            began = now
        self._waits.latest = (spec.queue, began, now)
        return float(began)

    def _check_deadlock(self, spec: QueueSpec, started: float) -> None:
        if time.monotonic() - started < DEADLOCK_AFTER or not self.inputs_full():
            return
        for cycle in self.config.cycles:
            if spec.consumer in cycle or f"{spec.consumer}/{spec.input}" in cycle:
                nodes = tuple(name for name in cycle if "/" not in name)
                raise BackpressureDeadlock(spec.edge, nodes, DEADLOCK_AFTER)

    # --- the end ---------------------------------------------------------------------------------

    def leave(self) -> None:
        """Report to the runner that the node ends by itself."""
        if not self.gone and not self._control.integrity.broken:
            self.send(messages.NodeLeaving())

    def close(self) -> None:
        """Close the sender and every descriptor. No thread may be receiving any more."""
        self.halt()
        with self._pumping:
            self.gone = True
            self._drop_answer()
            self.sender.close()
            self._control.close()
            for received in self.inbox:
                if isinstance(received, ReceivedFrame):
                    close_all(received.descriptors)
            self.board.close()
            close_all((self.wake_read, self._wake_write, self._halt_read, self._halt_write))
