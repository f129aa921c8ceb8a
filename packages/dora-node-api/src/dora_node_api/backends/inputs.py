"""The receiving side of a connected node: its session, receivers and waiter."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING

from dora_node_api.backends.backend import Backend, timed_out, until
from dora_node_api.data.arrow import load_pyarrow
from dora_node_api.errors import ControlError
from dora_node_api.protocol.connection import PUMP_EVERY_NS, ConnectionToRunner
from dora_node_api.protocol.frames import ReceivedFrame, close_all
from dora_node_api.protocol.messages import AddInput, RemoveInput
from dora_node_api.protocol.session import Session
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.consumer.waiting import Waiter
from dora_node_api.transport.shared.interruption import OwnedLock, interrupting
from dora_node_api.transport.shared.queue import QueueEnds
from dora_node_api.transport.shared.specs import QueueSpec

if TYPE_CHECKING:
    from dora_node_api.protocol.session import Event

VALIDATE_VARIABLE = "DORA_VALIDATE_ARRAYS"


class Inputs(Backend):
    """Joins a `Session` (order of events), receivers (messages) and a `ConnectionToRunner`."""

    def start_inputs(self, connection: ConnectionToRunner) -> None:
        """Prepare to receive, without inputs yet."""
        self._connection = connection
        self._integrity = connection.integrity
        self._calls = connection.calls
        self.session = Session(connection.config, wall_time=_wall_time)
        self.closing = False
        """Whether the node is being closed, which ends all waits."""
        self._receivers: dict[str, Receiver] = {}
        self._waiter = Waiter()
        self._waiter.add_fd(connection.fileno())
        self._waiter.add_fd(connection.wake_read)
        self._receiving = OwnedLock()
        self._loaded = False
        """Whether pyarrow was imported for the messages."""
        self._validate = os.environ.get(VALIDATE_VARIABLE, "").lower() in ("1", "true", "yes")
        connection.inputs_full = self._full

    def connect_inputs(self, queues: Sequence[QueueSpec], descriptors: Sequence[int]) -> None:
        """Open the queues of a Welcome."""
        ends: dict[str, tuple[QueueSpec | None, Sequence[int]]] = {}
        for queue in queues:
            share = queue.consumer_descriptors
            ends[queue.input] = (queue, descriptors[:share])
            descriptors = descriptors[share:]
        for config in self._connection.config.inputs:
            spec, own = ends.get(config.id, (None, ()))
            self._add(AddInput(config, spec), own)

    # --- receiving -------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        return self.session.ended or self.closing

    def next_event(self, timeout: float | None) -> Event | None:
        """Wait for an event.

        Raises RuntimeError in a signal handler that interrupted a call.
        """
        calls = self._calls
        me = get_ident()
        if me in calls.inside:
            raise interrupting()
        event = None
        try:  # as `Calls.run`, without calls
            calls.inside.add(me)
            deadline = None if timeout is None else until(timeout)
            with self._receiving:
                while not self.closing:
                    event = self._next(now := time.monotonic_ns())
                    if event is not None or self.session.ended:
                        break
                    if deadline is not None and now >= deadline:
                        return timed_out(timeout or 0.0)
                    woken_by = self._sleep(now, deadline)
                    if woken_by is not None:
                        event = self._take(woken_by)
                        if event is not None:
                            break
            return event
        except BaseException as error:
            if event is not None:
                self._integrity.left_by(type(error))  # the event is lost
            raise
        finally:
            calls.inside.discard(me)
            if calls.closing:
                calls.close()

    def poll_event(self) -> Event | None:
        # Another thread that waits in next_event would get the event.
        return self._calls.run(partial(self._receiving.run_if_free, self._poll))

    def _poll(self) -> Event | None:
        return None if self.closing else self._next(time.monotonic_ns())

    def _next(self, now: int) -> Event | None:
        connection = self._connection
        if now - connection.pumped > PUMP_EVERY_NS and not connection.gone:
            connection.pump()
        integrity = self._integrity
        if integrity.broken:
            integrity.check()
        if connection.inbox:
            with integrity:
                self.take_inbox()
        if self._receivers and not self._loaded:
            # Needed only for an input that was connected later; otherwise `Node()` has imported it.
            # The import takes long, so it precedes the change below.
            load_pyarrow()
            self._loaded = True
        session = self.session
        try:
            return session.next_event(now)
        except BaseException as error:
            if session.taking:
                session.taking = False
                integrity.left_by(type(error))
            raise

    def _take(self, receiver: Receiver) -> Event | None:
        """Return the event of the only input that ended a wait; None: `_next` finds it.

        A shorter `_next`: after a sleep each instruction takes several times as long.
        """
        if self._integrity.broken or self._connection.inbox:
            return None
        session = self.session
        try:
            return session.next_of(receiver.spec.input, time.monotonic_ns())
        except BaseException as error:
            if session.taking:
                session.taking = False
                self._integrity.left_by(type(error))
            raise

    def _sleep(self, now: int, deadline: int | None) -> Receiver | None:
        """Wait for a message, a control message, a tick, a timeout, or `deadline`.

        Returns the input if one alone ended the wait.
        """
        own = self.session.deadline()
        until_ns = own if deadline is None else deadline if own is None else min(own, deadline)
        connection = self._connection
        sent, connection.sent = connection.sent, False
        timeout = None if until_ns is None else max(0, until_ns - now) / 1e9
        ready = self._waiter.wait(timeout, answer=sent)
        if self._waiter.looked_at_fds > connection.pumped:
            connection.pumped = self._waiter.looked_at_fds  # the control socket is among them
        if len(ready) == 1 and isinstance(ready[0], Receiver):
            return ready[0]
        for item in ready:
            if isinstance(item, Receiver):
                continue
            if item == connection.wake_read:
                connection.clear_wake()
            if not connection.gone:
                connection.pump()
        return None

    def is_empty(self) -> bool:
        if self.ended:
            return True
        if self._connection.inbox or self.session.waiting(time.monotonic_ns()):
            return False
        return not any(receiver.pending() for receiver in list(self._receivers.values()))

    def fileno(self) -> int:
        return self._waiter.fileno()

    def deadline(self) -> int | None:
        # asyncio calls this before it sleeps on `fileno`.
        return self._calls.run(self._deadline)

    def _deadline(self) -> int | None:
        if self._waiter.wait(0):
            self._connection.clear_wake()
            self._connection.pump(wait=False)
            if not self.is_empty():
                return 0
        return self.session.deadline()

    def correct_times(self, inputs: Iterable[str]) -> None:
        self.session.correct_times(inputs)

    def count_unmatched(self, name: str, count: int) -> None:
        if (receiver := self._receivers.get(name)) is not None:
            receiver.count_unmatched(count)

    # --- inputs that come and go -----------------------------------------------------------------

    def take_inbox(self) -> None:
        """Process the control messages that concern inputs or the user."""
        inbox = self._connection.inbox
        while inbox:
            received = inbox.popleft()
            if isinstance(received, ControlError):
                self.session.failed(f"malformed message on the control socket: {received}")
            else:
                self.apply(received)
        if self._connection.gone:
            # A socket at end-of-file stays readable.
            self._waiter.remove_fd(self._connection.fileno())

    def apply(self, received: ReceivedFrame) -> None:
        """Process one control message."""
        match received.message:
            case AddInput() as message:
                self._add(message, received.descriptors)
            case RemoveInput(name) as message:
                self.session.handle(message)
                self._drop(name)
            case message:
                close_all(received.descriptors)
                self.session.handle(message)

    def _add(self, message: AddInput, descriptors: Sequence[int]) -> None:
        config = message.input
        self._drop(config.id)
        if message.queue is None:
            self.session.add_input(config, now=time.monotonic_ns())
            return
        receiver = Receiver(
            message.queue,
            QueueEnds.from_consumer_fds(descriptors),
            self._connection.board,
            self._connection.open_segment,
            validate=self._validate,
            on_first_copy=self._connection.warn,
        )
        self._receivers[config.id] = receiver
        self._waiter.add(receiver)
        now = time.monotonic_ns()
        self.session.add_input(config, receiver.receive, receiver.ready, now=now)

    def _drop(self, name: str) -> None:
        if (receiver := self._receivers.pop(name, None)) is not None:
            self._waiter.remove(receiver)
            receiver.close()

    def _full(self) -> bool:
        blocked = [r for r in list(self._receivers.values()) if r.spec.backpressure]
        return bool(blocked) and all(r.pending() >= r.spec.bound for r in blocked)

    def end_waits(self) -> None:
        """Let a thread that is in `next_event` return. Usable in a signal handler."""
        self.closing = True
        self._connection.wake()

    def close_inputs(self) -> bool:
        """Close all inputs once no thread receives any more; return whether that succeeded."""
        self.end_waits()
        if not self._receiving.acquire(timeout=2.0):
            return False
        try:
            for name in list(self._receivers):
                self._drop(name)
            self._waiter.close()
        finally:
            self._receiving.release()
        return True


def _wall_time(nanoseconds_ago: int) -> datetime:
    return datetime.now(UTC) - timedelta(microseconds=nanoseconds_ago // 1000)
