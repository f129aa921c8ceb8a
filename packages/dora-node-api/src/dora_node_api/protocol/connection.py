"""A node's connection to its runner: what is asked and told over the control socket, and routes.

Any thread may send, one at a time receives. Whoever finds the control socket readable takes its
messages in (`pump`): routes and answers are carried out at once, what concerns the inputs or the
user waits in the inbox for the thread that receives.
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

from dora_node_api.errors import (
    BackpressureDeadlock,
    ControlClosed,
    ControlError,
    DoraNodeError,
    SetUpError,
)
from dora_node_api.frozen import Frozen
from dora_node_api.protocol.control_socket import ControlSocket
from dora_node_api.protocol.messages import (
    INSPECTOR,
    AddRoute,
    Log,
    NodeConfig,
    OpenSegment,
    Received,
    RemoveRoute,
    Segment,
    SegmentFd,
    SegmentUnknown,
    SendOutput,
    Stop,
    Welcome,
    close_all,
)
from dora_node_api.protocol.reentry import Reentry
from dora_node_api.transport import (
    Board,
    NodeWords,
    Pool,
    QueueEnds,
    QueueSpec,
    Sender,
    default_pool_cap,
)
from dora_node_api.transport.producer.sending import lock_with_owner

ANSWER_TIMEOUT = 10.0
"""Seconds the runner may take to hand out a segment."""
DEADLOCK_AFTER = 5.0
"""Seconds a sender waits on a cycle of full backpressure queues before it gives up."""
POOL_SIZE_VARIABLE = "DORA_NODE_SHM_POOL_SIZE"


class Connection:
    """The control socket and what hangs on it: board, pool, sender."""

    def __init__(self, control: ControlSocket, welcome: Welcome, board_fd: int) -> None:
        self.config: NodeConfig = welcome.config
        self.incarnation = welcome.incarnation
        self.board = Board.attach(board_fd, welcome.board_size)
        self.words: NodeWords = self.board.node_words(welcome.node_area)
        self.inbox: deque[Received | ControlError] = deque()
        self.pumped = 0
        """CLOCK_MONOTONIC ns of the last look at the control socket."""
        self.stopped = False
        """The runner asked this node to stop, or is gone."""
        self.inputs_full: Callable[[], bool] = lambda: False
        """Whether every backpressure input of this node is full; set by whoever receives."""
        self.publishing: Callable[[SendOutput], Callable[[], None]] = lambda message: lambda: None
        """What sends what somebody publishes in this node's name; set by whoever sends."""
        self.reentry = Reentry(self._warn_of_deferred, (DoraNodeError, MemoryError))
        """What signal handlers do inside a send, or while routes change."""
        self._to_publish: deque[SendOutput] = deque()
        self._publishing, self._publishes = lock_with_owner()
        self._control = control
        self._pumping, self._pumps = lock_with_owner()
        self._taking: Received | ControlError | None = None
        self._awaited = 0
        """Number of the last OpenSegment, and of the only one whose answer is wanted."""
        self._answer: Received | None = None
        self._said: set[str] = set()
        self._gone = False
        self._waits = threading.local()
        # `wake` makes the receiving thread look again; `halt` stays readable once stopped, for
        # the senders that wait for room.
        self.wake_read, self._wake_write = os.pipe()
        self._halt_read, self._halt_write = os.pipe()
        for descriptor in (self.wake_read, self._wake_write, self._halt_write):
            os.set_blocking(descriptor, False)
        self.pool = Pool(pool_size(self.config), self._register_segment)
        self.sender = Sender(
            self.pool,
            self.board,
            self.incarnation,
            wait_for_room=self._wait_for_room,
            on_first_drop=self._warn_of_drop,
        )

    def fileno(self) -> int:
        """The control socket's descriptor."""
        return self._control.fileno()

    # --- telling the runner ----------------------------------------------------------------------

    def tell(self, message: Frozen, descriptors: tuple[int, ...] = ()) -> None:
        """Send a message; once the runner is gone there is nobody to tell."""
        try:
            self._control.send(message, descriptors)
        except ControlClosed:
            self._lost()

    def warn(self, sentence: str, fields: dict[str, str] | None = None) -> None:
        """A warning of this library, sent once."""
        if sentence not in self._said:
            self._said.add(sentence)
            log = Log(level="warn", message=sentence, target="dora_node_api", fields=fields)
            self.tell(log)

    def _warn_of_drop(self, spec: QueueSpec, sentence: str) -> None:
        # An inspector says itself what it has missed, and has no `queue_size` to set.
        if spec.consumer != INSPECTOR:
            self.warn(sentence, {"edge": spec.edge})

    def _warn_of_deferred(self, error: Exception) -> None:
        self.warn(f"what a signal handler sent during another send was not sent: {error}")

    def _register_segment(self, number: int, descriptor: int, size: int) -> None:
        self.tell(Segment(number=number, size=size), (descriptor,))

    # --- what the runner tells -------------------------------------------------------------------

    def pump(self, *, wait: bool = True) -> None:
        """Take in what the control socket holds, and send what is to be published.

        With `wait` False: only if nobody else does.
        """
        self.reentry.call(partial(self._pump, wait))

    def _pump(self, wait: bool) -> None:
        self._take_in(wait=wait)
        if self._to_publish and not self._publishes():
            self._publish_all()

    def _publish_all(self) -> None:
        # One at a time, in order: sending looks at the control socket, too.
        try:
            if self._publishing.acquire(blocking=False):
                while self._to_publish:
                    send = self.publishing(self._to_publish[0])
                    # Taken before it is sent, not after: an edge brings a message once or (if a
                    # signal handler raises in `send`, as in the program's own) not at all.
                    del self._to_publish[0]
                    send()
        finally:
            # No other call before it: what a signal handler raises there would leave it locked.
            try:  # noqa: SIM105
                self._publishing.release()
            except RuntimeError:
                pass  # it is another thread's

    def _take_in(self, *, wait: bool = True) -> None:
        if self._pumps():
            return  # a signal handler asks, in the middle of it
        self.pumped = 0  # what a signal handler's exception leaves in here is looked for at once
        if wait:
            with self._pumping:
                self._take_all()
        else:
            try:
                if self._pumping.acquire(blocking=False):
                    self._take_all()
            finally:
                try:  # noqa: SIM105
                    self._pumping.release()
                except RuntimeError:
                    pass
        self.pumped = time.monotonic_ns()

    def _take_all(self) -> None:
        while (received := self._to_take(0)) is not None:
            self._take(received)

    def _to_take(self, timeout: float) -> Received | ControlError | None:
        """What was received and is not taken, because a signal handler raised; else the next."""
        if self._taking is None and not self._gone:
            self._taking = self._receive(timeout)
        return self._taking

    def _receive(self, timeout: float) -> Received | ControlError | None:
        try:
            return self._control.receive(timeout=timeout)
        except ControlClosed:
            self._lost()
            return None
        except ControlError as error:
            if error.fatal:
                # Told first: the STOP that follows ends the stream.
                self._to_inbox(error)
                self._lost()
                return None
            return error

    def _take(self, received: Received | ControlError) -> None:
        if isinstance(received, ControlError):
            self._to_inbox(received)
            return
        # Not taken before the store in each case, and not twice: no call comes between it and what
        # keeps the message. Routes may come twice, which changes nothing.
        match received.message:
            case AddRoute(output, spec):
                self.add_route(output, spec, received.descriptors)
                self._taking = None
            case RemoveRoute(queue):
                self.sender.remove_route(queue)
                self._taking = None
            case SegmentFd(request) | SegmentUnknown(request):
                self._taking = None
                if request == self._awaited:
                    self._answer = received
                else:
                    close_all(received.descriptors)
            case SendOutput() as message:
                self._taking = None
                self._to_publish.append(message)
                self.wake()
            case Stop():
                self.halt()
                self._to_inbox(received)
            case _:
                self._to_inbox(received)

    def add_route(self, output: str, spec: QueueSpec, descriptors: tuple[int, ...]) -> None:
        """Send `output` to this queue too."""
        try:
            ends = QueueEnds.from_producer_fds(descriptors)
        except ValueError as error:
            close_all(descriptors)
            self._to_inbox(ControlError(f"the route of output `{output}` is unusable: {error}"))
            return
        self.sender.add_route(output, spec, ends)

    def _to_inbox(self, received: Received | ControlError) -> None:
        self._taking = None
        self.inbox.append(received)
        self.wake()

    def wake(self) -> None:
        """Make the receiving thread look again. Usable in a signal handler."""
        with suppress(OSError):
            os.write(self._wake_write, b"w")

    def clear_wake(self) -> None:
        """Called by the receiving thread before it looks."""
        with suppress(OSError):
            os.read(self.wake_read, 4096)

    def halt(self) -> None:
        """The node is to stop: nobody waits for room any more."""
        self.stopped = True
        with suppress(OSError):
            os.write(self._halt_write, b"h")

    def _lost(self) -> None:
        """The runner is gone: the node is to stop."""
        if not self._gone:
            self._gone = True
            self.halt()
            self._to_inbox(Received(Stop("MANUAL")))

    @property
    def gone(self) -> bool:
        """Whether the control socket is of no more use."""
        return self._gone

    # --- segments of other nodes -----------------------------------------------------------------

    def open_segment(self, incarnation: int, number: int) -> tuple[int, int]:
        """Descriptor and size of a segment. Raises LookupError if nobody has it any more."""
        with self._pumping:
            self._forget_answer()
            self._awaited += 1
            self.tell(OpenSegment(self._awaited, incarnation, number))
            deadline = time.monotonic() + ANSWER_TIMEOUT
            while (answer := self._answer) is None:
                left = deadline - time.monotonic()
                if left <= 0 or self._gone:
                    raise LookupError("the runner does not answer for a segment")
                if (received := self._to_take(left)) is not None:
                    self.reentry.call(partial(self._take, received))
            if isinstance(answer.message, SegmentFd) and len(answer.descriptors) == 1:
                self._answer = None
                return answer.descriptors[0], answer.message.size
            self._forget_answer()
        raise LookupError(f"segment {number} of incarnation {incarnation} is gone")

    def _forget_answer(self) -> None:
        """Close what an answer brought that nobody took: a signal handler raised before."""
        answer, self._answer = self._answer, None
        if answer is not None:
            close_all(answer.descriptors)

    # --- backpressure ----------------------------------------------------------------------------

    def _wait_for_room(self, spec: QueueSpec, descriptor: int, timeout: float) -> bool:
        """Wait until a full queue may have room; False: give this message up there."""
        started = self._blocked_since(spec)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._halt_read, select.POLLIN)
        if not self._gone:
            poll.register(self._control.fileno(), select.POLLIN)
        ready = dict(poll.poll(min(timeout, 1.0) * 1000))
        if self._control.fileno() in ready and not self._gone:
            self._take_in()
        if self.stopped:
            return False
        if descriptor not in ready:
            self._check_deadlock(spec, started)
        return True

    def _blocked_since(self, spec: QueueSpec) -> float:
        """When this thread's present wait for this queue began."""
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

    def close(self) -> None:
        """Close the sender and every descriptor. Nobody may be receiving any more."""
        self.halt()
        with self._pumping:
            if self._taking is not None:  # a signal handler raised: who owns its descriptors?
                self._take(self._taking)
            self._gone = True
            self._forget_answer()
            self.sender.close()
            self._control.close()
            for received in self.inbox:
                if isinstance(received, Received):
                    close_all(received.descriptors)
            self.board.close()
            close_all((self.wake_read, self._wake_write, self._halt_read, self._halt_write))


def pool_size(config: NodeConfig) -> int:
    """Bytes of shared memory this node may use: its setting, the environment, or the default.

    Raises SetUpError for an environment variable that is no size.
    """
    if config.pool_size is not None:
        return config.pool_size
    given = os.environ.get(POOL_SIZE_VARIABLE, "").strip()
    if not given:
        return default_pool_cap()
    size = parse_pool_size(given)
    if size is None:
        raise SetUpError(f"{POOL_SIZE_VARIABLE}={given!r} is no size: give bytes, or say 256MB")
    return size


def parse_pool_size(given: str) -> int | None:
    """Bytes of a size as people write it (`256MB`, powers of 1024); None if it is none."""
    number = given.strip().upper().removesuffix("B").removesuffix("I")
    unit = 1
    if number[-1:] in ("K", "M", "G"):
        unit = 1024 ** ("KMG".index(number[-1]) + 1)
        number = number[:-1]
    try:
        size = int(float(number) * unit)
    except (ValueError, OverflowError):
        return None
    return size if size > 0 else None
