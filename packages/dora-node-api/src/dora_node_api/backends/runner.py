"""The backend of a node that a runner started or let in: its inputs, its outputs, its end."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

import dora_node_api
from dora_node_api._version import __version__
from dora_node_api.backends.backend import Backend, timed_out, until
from dora_node_api.data.arrow import encode
from dora_node_api.data.metadata import encode_metadata
from dora_node_api.data.typecheck import TypeCheck
from dora_node_api.errors import (
    ControlClosed,
    ControlError,
    DoraNodeError,
    InvalidData,
    NodeClosed,
    SetUpError,
    UnknownOutput,
)
from dora_node_api.protocol.connection import Connection
from dora_node_api.protocol.control_socket import ControlSocket
from dora_node_api.protocol.messages import (
    PROTOCOL_VERSION,
    AddInput,
    AddRoute,
    CloseOutputs,
    Go,
    Hello,
    InputConfig,
    Leaving,
    Received,
    Refused,
    RemoveInput,
    RemoveRoute,
    SendOutput,
    Stop,
    StopDataflow,
    Welcome,
    close_all,
)
from dora_node_api.protocol.session import Session
from dora_node_api.transport import QueueEnds, QueueSpec, Receiver, Waiter
from dora_node_api.transport.producer.blocks import HeapBlock, heap_sample
from dora_node_api.transport.producer.sending import lock_with_owner

if TYPE_CHECKING:
    from dora_node_api.data.arrow import EncodedPayload
    from dora_node_api.protocol.session import Event
    from dora_node_api.transport.producer.blocks import Sample

LOOK_AT_CONTROL_NS = 2_000_000
"""A busy node looks at its control socket this often: STOP takes at most 2 ms longer."""
VALIDATE_VARIABLE = "DORA_VALIDATE_ARRAYS"
PROTECTING = ("request_id", "goal_id", "goal_status")
"""Metadata keys whose messages are never evicted from a queue."""
_holding = threading.RLock()
"""Guards who holds a connection; a finalizer may close one in the middle of anything."""


def connect(path: str, node_id: str, incarnation: int | None) -> RunningBackend:
    """Say Hello to the runner at `path` and wait until the dataflow runs.

    Raises SetUpError if the runner refuses, is gone, or ends before the dataflow has started.
    """
    try:
        control = ControlSocket.connect(path)
    except OSError as error:
        raise SetUpError(
            f"node `{node_id}` cannot reach its runner at {path}: {error}."
            " Has the dataflow ended already?"
        ) from error
    try:
        return _shake_hands(control, path, node_id, incarnation)
    except ControlClosed as error:
        control.close()
        raise SetUpError(
            f"node `{node_id}`: the runner ended, or closed the connection, before the dataflow had"
            " started"
        ) from error
    except ControlError as error:
        control.close()
        raise SetUpError(
            f"node `{node_id}`: what answers at {path} does not speak the protocol of"
            f" dora_node_api {__version__}: {error}"
        ) from error
    except BaseException:
        control.close()
        raise


def _shake_hands(
    control: ControlSocket, path: str, node_id: str, incarnation: int | None
) -> RunningBackend:
    control.send(
        Hello(
            node_id=node_id,
            incarnation=incarnation,
            pid=os.getpid(),
            protocol=PROTOCOL_VERSION,
            version=__version__,
            python=sys.executable or "",
            package=os.path.dirname(dora_node_api.__file__),  # noqa: PTH120 - pathlib is slow to import
        )
    )
    received = control.receive()
    match received:
        case Received(Welcome() as welcome, descriptors):
            backend = RunningBackend(control, welcome, descriptors, path=path)
        case Received(Refused(sentence)):
            raise SetUpError(sentence)
        case other:
            raise ControlError(f"expected Welcome, not {other}")
    try:
        backend.wait_for_start(control)
    except BaseException:
        backend.close()
        raise
    return backend


class RunningBackend(Backend):
    """Joins a `Session` (what comes next), receivers (what came) and a `Connection`."""

    def __init__(
        self,
        control: ControlSocket,
        welcome: Welcome,
        descriptors: Sequence[int],
        *,
        path: str = "",
    ) -> None:
        if not descriptors:
            raise ControlError("Welcome came without the status board")
        self.config = welcome.config
        self._path = path
        self._holders = 1
        self._connection = Connection(control, welcome, descriptors[0])
        self._reentry = self._connection.reentry
        self._session = Session(
            self.config, null_array=partial(self._reentry.call, _null_array), wall_time=_wall_time
        )
        self._receivers: dict[str, Receiver] = {}
        self._waiter = Waiter()
        self._waiter.add_fd(self._connection.fileno())
        self._waiter.add_fd(self._connection.wake_read)
        self._receiving, self._receives = lock_with_owner()
        self._closing = False
        self._imported = False
        """Whether pyarrow was imported for the first message."""
        self._outputs = frozenset(self.config.outputs)
        self._closed_outputs: frozenset[str] = frozenset()
        self._validate = os.environ.get(VALIDATE_VARIABLE, "").lower() in ("1", "true", "yes")
        self._types = TypeCheck.from_environment(self.config, self.warn)
        self._connection.inputs_full = self._inputs_full
        self._connection.publishing = self._publishing
        self._connect_inputs(welcome.queues, descriptors[1:])

    def _connect_inputs(self, queues: Sequence[QueueSpec], descriptors: Sequence[int]) -> None:
        # A backpressure queue has one descriptor more, to tell its producer of room.
        shares = [3 if spec.backpressure else 2 for spec in queues]
        if sum(shares) != len(descriptors):
            raise ControlError(f"{len(descriptors)} descriptors came for {len(queues)} queues")
        ends: dict[str, tuple[QueueSpec | None, Sequence[int]]] = {}
        for queue, share in zip(queues, shares, strict=True):
            ends[queue.input] = (queue, descriptors[:share])
            descriptors = descriptors[share:]
        for config in self.config.inputs:
            spec, own = ends.get(config.id, (None, ()))
            self._add_input(AddInput(config, spec), own)

    def wait_for_start(self, control: ControlSocket) -> None:
        """Take in the routes until Go. A STOP before it is handed out as the first event."""
        while True:
            received = control.receive()
            if received is None:
                continue
            match received.message:
                case Go(epoch):
                    self._session.start(epoch)
                    return
                case Refused(sentence):
                    raise SetUpError(sentence)
                case AddRoute(output, spec):
                    self._connection.add_route(output, spec, received.descriptors)
                case RemoveRoute(queue):
                    self._connection.sender.remove_route(queue)
                case Stop():
                    self._connection.halt()
                    self._apply(received)
                    return
                case _:
                    self._apply(received)

    # --- receiving -------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        session = self._session
        return (session.ended and session.returned is None) or self._closing

    def next_event(self, timeout: float | None) -> Event | None:
        event = None
        deadline = until(timeout)
        try:
            with self._receiving:
                while not self._closing:
                    event = self._next(now := time.monotonic_ns())
                    if event is not None or self._session.ended:
                        break
                    if deadline is not None and now >= deadline:
                        return timed_out(timeout or 0.0)
                    self._sleep(now, deadline)
            # Nothing may be called between here and the return: a signal handler could raise.
            return event
        except BaseException:
            if event is not None:
                self._session.returned = event
            raise

    def poll_event(self) -> Event | None:
        event = None
        if self._receives():
            return None  # a signal handler asks, in the middle of a receive
        try:
            try:
                # Another thread that waits in next_event would get whatever comes.
                if self._receiving.acquire(blocking=False) and not self._closing:
                    event = self._next(time.monotonic_ns())
            finally:
                # No other call before it: what a signal handler raises there would leave it locked.
                try:  # noqa: SIM105
                    self._receiving.release()
                except RuntimeError:
                    pass  # it is another thread's
            return event
        except BaseException:
            if event is not None:
                self._session.returned = event
            raise

    def _next(self, now: int) -> Event | None:
        connection = self._connection
        if now - connection.pumped > LOOK_AT_CONTROL_NS and not connection.gone:
            connection.pump()
        if connection.inbox:
            self._take_inbox()
        if not self._imported and any(r.pending() for r in list(self._receivers.values())):
            self._reentry.call(_null_array)  # what signal handlers send meanwhile needs it too
            self._imported = True
        # Nothing is called between here and the return, either.
        return self._session.next_event(now)

    def _sleep(self, now: int, deadline: int | None) -> None:
        """Wait for a message, a word of the runner, a tick, a timeout, or `deadline`."""
        own = self._session.deadline()
        until_ns = own if deadline is None else deadline if own is None else min(own, deadline)
        words = self._connection.words
        words.set_waiting(True)
        try:
            ready = self._waiter.wait(None if until_ns is None else max(0, until_ns - now) / 1e9)
        finally:
            words.set_waiting(False)
        for item in ready:
            if isinstance(item, Receiver):
                continue
            if item == self._connection.wake_read:
                self._connection.clear_wake()
            if not self._connection.gone:
                self._connection.pump()

    def is_empty(self) -> bool:
        if self.ended:
            return True
        if self._connection.inbox or self._session.waiting(time.monotonic_ns()):
            return False
        return not any(receiver.pending() for receiver in list(self._receivers.values()))

    def fileno(self) -> int:
        return self._waiter.fileno()

    def deadline(self) -> int | None:
        """As the base class says; called by asyncio before it sleeps on `fileno`."""
        if self._waiter.wait(0):
            self._connection.clear_wake()
            self._connection.pump(wait=False)
            if not self.is_empty():
                return 0
        return self._session.deadline()

    def waits(self, waiting: bool) -> None:
        self._connection.words.set_waiting(waiting)

    def _take_inbox(self) -> None:
        inbox = self._connection.inbox
        while inbox:
            received = inbox[0]
            if isinstance(received, ControlError):
                self._session.failed(f"a broken message on the control socket: {received}")
            else:
                self._apply(received)
            del inbox[0]
        if self._connection.gone:
            # A socket at its end stays readable for ever.
            self._waiter.remove_fd(self._connection.fileno())

    def _apply(self, received: Received) -> None:
        match received.message:
            case AddInput() as message:
                self._add_input(message, received.descriptors)
            case RemoveInput(name) as message:
                self._session.handle(message)
                self._drop_receiver(name)
            case message:
                close_all(received.descriptors)
                self._session.handle(message)

    def _add_input(self, message: AddInput, descriptors: Sequence[int]) -> None:
        """May be repeated when a signal handler has raised."""
        receiver = self._receivers.get(message.input.id)
        if receiver is not None and receiver.fds()[0] in descriptors:
            self._watch(message.input, receiver)
            return
        self._drop_receiver(message.input.id)
        if message.queue is None:
            close_all(descriptors)
            self._session.add_input(message.input)
            return
        try:
            ends = QueueEnds.from_consumer_fds(descriptors)
        except ValueError as error:
            close_all(descriptors)
            self._session.failed(f"input `{message.input.id}` cannot be connected: {error}")
            return
        receiver = Receiver(
            message.queue,
            ends,
            self._connection.board,
            self._connection.open_segment,
            validate=self._validate,
            on_first_copy=lambda _spec, sentence: self.warn(sentence),
        )
        self._receivers[message.input.id] = receiver
        self._watch(message.input, receiver)

    def _watch(self, config: InputConfig, receiver: Receiver) -> None:
        self._waiter.add(receiver)
        self._session.add_input(config, receiver.receive, receiver.ready)

    def _drop_receiver(self, name: str) -> None:
        """May be repeated when a signal handler has raised."""
        if (receiver := self._receivers.get(name)) is not None:
            self._waiter.remove(receiver)
            receiver.close()
            del self._receivers[name]

    def _inputs_full(self) -> bool:
        blocked = [r for r in list(self._receivers.values()) if r.spec.backpressure]
        return bool(blocked) and all(r.pending() >= r.spec.bound for r in blocked)

    # --- sending ---------------------------------------------------------------------------------

    def send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        reentry = self._reentry
        me = get_ident()
        if me in reentry.inside or (reentry.waiting and reentry.busy()):
            self._send_later(output, data, metadata)
            return
        try:
            reentry.inside.add(me)
            self._send(output, data, metadata)
        finally:
            # No other call before it: what a signal handler raises there would leave it inside.
            reentry.inside.discard(me)
            if reentry.waiting:
                reentry.run_waiting()

    def _send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        if output not in self._outputs:
            self.warn(self._undeclared(output) + " What is sent on it is dropped.")
            return
        self._look_at_control()
        payload = self._encode(output, data, metadata)
        if metadata:
            protected, flush = delivery_flags(metadata)
            self._connection.sender.send(output, payload, protected=protected, flush=flush)
        else:
            self._connection.sender.send(output, payload)

    def _encode(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> EncodedPayload:
        try:
            payload = encode(data, metadata, on_warning=self.warn)
        except TypeError as error:
            raise InvalidData(f"output `{output}`: {error}") from error
        if self._types is not None:
            self._types.check(output, data, metadata)
        return payload

    def _send_later(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        """Send after the call that a signal handler interrupted."""
        if output not in self._outputs:
            self.warn(self._undeclared(output) + " What is sent on it is dropped.")
            return
        if _is_importing_pyarrow():
            later = partial(self._send, output, _own_data(data), dict(metadata or {}))
            self._reentry.submit(later)
            return
        payload = self._encode(output, data, metadata)
        payload.detach()
        protected, flush = delivery_flags(metadata or {})
        send = self._connection.sender.send
        self._reentry.submit(partial(send, output, payload, protected=protected, flush=flush))

    def _publishing(self, message: SendOutput) -> Callable[[], None]:
        """Somebody asked for it, not the program: the program does not hear of what goes wrong."""
        from dora_node_api.data.json_values import array_from_json

        output, metadata = message.output, message.metadata
        sender = self._connection.sender

        def send() -> None:
            try:
                if output in self._outputs and not self._closing:
                    sender.send(output, payload, protected=protected, flush=flush)
            except (DoraNodeError, MemoryError) as error:
                self._not_published(output, error)

        try:
            data = array_from_json(message.data)
            payload = encode(data, metadata, on_warning=self.warn)
            protected, flush = delivery_flags(metadata)
            if self._types is not None:
                self._types.check(output, data, metadata)
        except (TypeError, ValueError, DoraNodeError, MemoryError) as error:
            return partial(self._not_published, output, error)
        return send

    def _not_published(self, output: str, error: Exception) -> None:
        self.warn(f"what was published on output `{output}` was not sent: {error}")

    def _look_at_control(self) -> None:
        """A node that only sends hears of new routes here."""
        connection = self._connection
        if time.monotonic_ns() - connection.pumped > LOOK_AT_CONTROL_NS and not connection.gone:
            connection.pump(wait=False)

    def _undeclared(self, output: str) -> str:
        declared = ", ".join(f"`{name}`" for name in self.config.outputs) or "none"
        return f"Output `{output}` not in node's output list ({declared}); add it to `outputs`."

    def allocate_sample(self, output: str, nbytes: int, metadata: Mapping[str, Any]) -> Sample:
        if output not in self._outputs:
            raise UnknownOutput(self._undeclared(output))
        try:
            encoded = encode_metadata(metadata, on_warning=self.warn)
        except TypeError as error:
            raise InvalidData(f"output `{output}`: {error}") from error
        if self._reentry.busy():
            return heap_sample(nbytes)
        return self._reentry.call(partial(self._connection.sender.allocate_sample, nbytes, encoded))

    def send_sample(self, output: str, sample: Sample, metadata: Mapping[str, Any]) -> None:
        if self._closing:
            raise NodeClosed(f"output `{output}`: the node was closed before its sample was sent")
        protected, flush = delivery_flags(metadata)
        sender = self._connection.sender
        sample.close_views()
        if isinstance(sample.block, HeapBlock):
            payload = self._encode(output, sample.as_memoryview(), metadata)
            sample.take_hold()
            send = partial(sender.send, output, payload, protected=protected, flush=flush)
        else:
            send = partial(sender.send_sample, output, sample, protected=protected, flush=flush)
        if not self._reentry.busy():
            self._look_at_control()
        self._reentry.submit(send)

    def warn(self, message: str) -> None:
        self._connection.warn(message)

    def close_outputs(self, outputs: tuple[str, ...]) -> None:
        self._outputs -= frozenset(outputs)
        self._reentry.submit(partial(self._connection.tell, CloseOutputs(outputs)))

    def stop_dataflow(self, reason: str) -> None:
        self._connection.tell(StopDataflow(reason))

    # --- the end ---------------------------------------------------------------------------------

    def share(self, path: str, node_id: str) -> bool:
        with _holding:
            if (path, node_id) != (self._path, self.config.node_id) or self._connection.gone:
                return False
            if self.ended or not self._holders:
                return False
            self._holders += 1
            return True

    def leave(self) -> None:
        if not self._closing and not self._connection.gone:
            self._reentry.run_waiting()  # what an exception of a signal handler left
            self._connection.tell(Leaving())

    def close(self) -> None:
        if self._holders <= 1 and self._reentry.busy():
            self._connection.halt()  # a send that waits for room gives up
        self._reentry.submit(self._close)

    def _close(self) -> None:
        with _holding:
            self._holders = max(0, self._holders - 1)
            if self._holders or self._closing:
                return
        self.leave()
        self._closing = True
        self._connection.wake()
        # A thread in next_event sees `_closing` and comes out. This one may be it, if a signal
        # handler closes the node: then the descriptors are left to the end of the process.
        if self._receives() or not self._receiving.acquire(timeout=2.0):
            return
        try:
            self._take_inbox()  # the first of it may be half done, since a signal handler raised
            for name in list(self._receivers):
                self._drop_receiver(name)
            self._waiter.close()
            self._connection.close()
        finally:
            self._receiving.release()


def _is_importing_pyarrow() -> bool:
    """Whether the interrupted call imports pyarrow, which a signal handler cannot do as well."""
    module = sys.modules.get("pyarrow")
    return module is None or getattr(module.__spec__, "_initializing", False)


def _own_data(data: Any) -> Any:
    """Data that the caller cannot change; arrays of pyarrow are immutable."""
    if isinstance(data, bytearray | memoryview):
        view = memoryview(data)
        return memoryview(view.tobytes()).cast(view.format)  # type: ignore[call-overload]
    return data.copy() if hasattr(data, "__array_interface__") else data


def delivery_flags(metadata: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether a message is protected from eviction, and whether it clears older ones."""
    return any(key in metadata for key in PROTECTING), metadata.get("flush") is True


_NULLS: list[Any] = []


def _null_array() -> Any:
    """The value of a tick: an empty array of null type, always the same one."""
    if not _NULLS:
        import pyarrow

        _NULLS.append(pyarrow.nulls(0))
    return _NULLS[0]


def _wall_time(nanoseconds_ago: int) -> datetime:
    return datetime.now(UTC) - timedelta(microseconds=nanoseconds_ago // 1000)
