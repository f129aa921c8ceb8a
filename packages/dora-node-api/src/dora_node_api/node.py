"""`Node`: the interface of a program to its dataflow."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime
from operator import index
from typing import TYPE_CHECKING, Any, NoReturn, cast

from dora_node_api.backends.attach import attach
from dora_node_api.backends.backend import Backend, Unusable, check_timeout
from dora_node_api.backends.sample import SampleHandler
from dora_node_api.data.metadata import utc_datetime
from dora_node_api.errors import InvalidData, NodeClosed, NodeForked
from dora_node_api.ids import uuid7
from dora_node_api.logging.log_lines import entry_line, text_line, write_line
from dora_node_api.protocol import messages
from dora_node_api.queue_policy import QueuePolicy

if TYPE_CHECKING:
    from dora_node_api.backends.asynchronous import AsyncReceiver
    from dora_node_api.backends.merged import ValueSource
    from dora_node_api.events import EventStream
    from dora_node_api.joined import JoinedEvents
    from dora_node_api.protocol.messages import InputConfig, NodeConfig
    from dora_node_api.protocol.session import Event

_FORKED = (
    "this process was forked from the one that made the node, and cannot use it. Send the child's"
    " results to the parent (with multiprocessing.Queue, for example), or start the child with the"
    ' start method "spawn" or "forkserver"'
)
_CLOSED = "the node was closed"

MAX_HOLD_REASON = 200
"""Characters of the reason for which a node holds updates."""


class Node:
    """A node of a dataflow: receives events, sends outputs.

    `Node()` connects to the dataflow that started the process. `Node("id")` does the same if a
    dataflow started the process; otherwise it attaches to the running dataflow that has a dynamic
    node of that id. The constructor returns once every node of the dataflow has connected. Raises
    RuntimeError, with the reason, if the node cannot be connected.

    Of several dataflows with such a node, `dataflow` selects one by its name or the start of its
    UUID, and `daemon_port` (or DORA_DAEMON_LOCAL_LISTEN_PORT) those of the daemon with this
    `--local-listen-port`. No daemon is needed otherwise: a dataflow of `dora run` is found with any
    port.

    A process may be several dynamic nodes. A second `Node` of one id in a process is another handle
    to the same node: each event goes to one of the handles.

    Events come as dictionaries (`next`, iteration, `recv_async`, `async for`) or as typed objects
    (`events`). Any thread may send; one thread at a time receives.

    In a signal handler that interrupted a call only `close` works, any other call raises. An
    exception that a handler raises while a call waits (`next`, a send that waits for room) loses
    nothing. If it ends a call at another point, the next call may raise NodeInterrupted.
    """

    def __init__(
        self,
        node_id: str | None = None,
        daemon_port: int | None = None,
        dataflow: str | None = None,
    ) -> None:
        living = [node._backend for node in list(_living)]
        backend = attach(node_id, living, daemon_port, dataflow)
        self._backend: Backend = backend
        self._async: AsyncReceiver | None = None
        self._finalizer = weakref.finalize(self, backend.close)
        self._finalizer.atexit = False
        _living.add(self)
        from dora_node_api.logging.logging_bridge import install

        install(backend.config.node_id, has_terminal=backend.config.dynamic)

    # --- receiving -------------------------------------------------------------------------------

    def next(self, timeout: float | None = None) -> Event | None:
        """Wait for the next event. None when the stream has ended.

        After `timeout` seconds without one, returns an event of type ERROR. Raises ValueError for a
        negative timeout or NaN.
        """
        if timeout is not None:
            timeout = check_timeout(timeout)
        return self._backend.next_event(timeout)

    def try_recv(self) -> Event | None:
        """Return the next event if one waits, else None. Never blocks."""
        return self._backend.poll_event()

    def drain(self) -> list[Event]:
        """Return all events that wait. Raises RuntimeError at the end of the stream."""
        events = []
        while (event := self._backend.poll_event()) is not None:
            events.append(event)
        if not events and self._backend.ended:
            raise NodeClosed("Could not drain events. Channel is closed")
        return events

    def is_empty(self) -> bool:
        """Whether no event waits."""
        return self._backend.is_empty()

    async def recv_async(self, timeout: float | None = None) -> Event | None:  # noqa: ASYNC109
        """Do what `next` does, inside asyncio. Cancelling it loses no event."""
        if timeout is not None:
            timeout = check_timeout(timeout)
        if self._async is None:
            from dora_node_api.backends.asynchronous import AsyncReceiver

            this = weakref.ref(self)
            self._async = AsyncReceiver(lambda: _backend_of(this))
        return await self._async.receive(timeout)

    def __iter__(self) -> Node:
        return self

    def __next__(self) -> Event:
        event = self._backend.next_event(None)
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> Node:
        return self

    async def __anext__(self) -> Event:
        event = await self.recv_async()
        if event is None:
            raise StopAsyncIteration
        return event

    def events(self) -> EventStream:
        """Return the same stream as typed events, for `for` and `async for`."""
        from dora_node_api.events import EventStream

        return EventStream(self)

    def joined(self, *inputs: str, within: float, wait: float = 0.5) -> JoinedEvents:
        """Return the same stream with a `Sample` for inputs of the same instant, for `for` and
        `async for`.

        There is one sample for each message of the first input, with the message of each other
        input that was captured nearest to it, at most `within` seconds apart. A sample comes once
        no nearer message can come, at most `within` seconds after the message of the first input. A
        message waits `wait` seconds longer for others that arrive later. Messages that are in no
        sample are dropped, and counted in `dora top`. All other events come unchanged.

        The time of the capture is `stamp` in the metadata (int nanoseconds as of `time.time_ns()`,
        float seconds as of `time.time()`, or a datetime), else the time of the send. Between
        machines it is corrected, whatever their clocks show.
        """
        from dora_node_api.joined import Join, JoinedEvents, SampleQueue

        join = Join(*inputs, within=within, wait=wait)
        return JoinedEvents(self, SampleQueue(join, self._backend))

    def correct_times(self, *inputs: str) -> None:
        """Add the key `captured_ns` to later events of these inputs: when the message was captured,
        as in `joined`, by CLOCK_MONOTONIC of this machine (`time.monotonic_ns()`).
        """
        self._backend.correct_times(inputs)

    def merge_external_events(self, subscription: ValueSource) -> None:
        """Receive the messages of a `Ros2Subscription` as well, as events of kind "external".

        Such an event has only `kind` and `value`; `events()` does not yield them.
        """
        from dora_node_api.backends.merged import MergedBackend

        if not isinstance(self._backend, MergedBackend):
            self._backend = cast(Any, MergedBackend(self._backend))
        cast(MergedBackend, self._backend).add(subscription)

    # --- sending ---------------------------------------------------------------------------------

    def send_output(
        self, output_id: str, data: Any, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Send one message.

        `data`: bytes or any buffer (received as a UInt8Array), a pyarrow array, or a numpy array.
        `metadata`: str keys; bool, int, float, str, lists of these, datetime. A message on an
        undeclared output is dropped, with one warning. Waits while an input with
        `queue_policy: backpressure` is full. Raises RuntimeError for data or metadata that cannot
        be sent, and MemoryError (PoolExhausted) if shared memory runs out.
        """
        try:
            self._backend.send(output_id, data, metadata)
        except InvalidData as error:  # its cause is in the calling line
            raise error.with_traceback(None) from None

    def send_output_raw(
        self, output_id: str, data_length: int, metadata: Mapping[str, Any] | None = None
    ) -> SampleHandler:
        """Return memory for a message of `data_length` bytes, to be filled in place and then sent.

        Raises RuntimeError for an output that the dataflow does not declare and for an invalid
        length or metadata, and MemoryError (PoolExhausted) if shared memory runs out.
        """
        try:
            nbytes = index(data_length)
        except TypeError:
            nbytes = -1
        if not 0 <= nbytes < 1 << 63:
            raise InvalidData(
                f"output `{output_id}`: invalid length {data_length!r}; the length must be an int,"
                " zero or more"
            )
        kept = _own_copy(output_id, metadata)
        sample = self._backend.allocate_sample(output_id, nbytes, kept)
        return SampleHandler(self._backend, output_id, sample, kept)

    def send_service_request(
        self, output_id: str, data: Any, metadata: Mapping[str, Any] | None = None
    ) -> str:
        """Send a request with a new `request_id` (a UUID of version 7) and return that id."""
        request = uuid7()
        own = _own_copy(output_id, metadata)
        if "request_id" in own:
            self._backend.warn(
                f"send_service_request on output `{output_id}` replaces the request_id in the"
                " metadata; use send_output to choose a request_id"
            )
        self.send_output(output_id, data, {**own, "request_id": request})
        return request

    def send_service_response(self, output_id: str, data: Any, metadata: Mapping[str, Any]) -> None:
        """Send the response to a request, with the metadata of the request (`request_id`)."""
        if "request_id" not in _own_copy(output_id, metadata):
            self._backend.warn(
                f"send_service_response on output `{output_id}` without a request_id, so the client"
                " cannot match it to a request; pass the metadata of the request"
            )
        self.send_output(output_id, data, metadata)

    # --- logging ---------------------------------------------------------------------------------

    def log(
        self,
        level: str,
        message: str,
        target: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Write an entry to the log; a dynamic node writes to its terminal.

        Levels: error, warn, info, debug, trace; others are info.
        """
        config, text = self._backend.config, str(message)
        if config.dynamic:
            write_line(text_line(level, text, target=target, fields=fields))
        else:
            write_line(entry_line(config.node_id, level, text, target=target, fields=fields))

    def log_error(
        self, message: str, target: str | None = None, fields: Mapping[str, Any] | None = None
    ) -> None:
        """`log` at level error."""
        self.log("error", message, target, fields)

    def log_warn(
        self, message: str, target: str | None = None, fields: Mapping[str, Any] | None = None
    ) -> None:
        """`log` at level warn."""
        self.log("warn", message, target, fields)

    def log_info(
        self, message: str, target: str | None = None, fields: Mapping[str, Any] | None = None
    ) -> None:
        """`log` at level info."""
        self.log("info", message, target, fields)

    def log_debug(
        self, message: str, target: str | None = None, fields: Mapping[str, Any] | None = None
    ) -> None:
        """`log` at level debug."""
        self.log("debug", message, target, fields)

    def log_trace(
        self, message: str, target: str | None = None, fields: Mapping[str, Any] | None = None
    ) -> None:
        """`log` at level trace."""
        self.log("trace", message, target, fields)

    def report_waiting(self, text: str | None) -> None:
        """Show what the node waits for outside of the dataflow, such as "waits for the robot".

        `dora list`, `dora node list`, `dora why` and the page show it, and the node as degraded,
        until None is reported or the process ends.
        """
        self._backend.send_control(messages.ReportWaiting(text))

    def report_details(self, details: dict[str, Any]) -> None:
        """Show details of a node of a plug-in's kind on the page; replaces an earlier report."""
        self._backend.send_control(messages.ReportDetails(details))

    # --- the dataflow ----------------------------------------------------------------------------

    @property
    def node_id(self) -> str:
        """Id of this node."""
        return self._backend.config.node_id

    def dataflow_descriptor(self) -> dict[str, Any]:
        """Return the running dataflow, with modules and variables expanded.

        Each node has `inputs` and `outputs`, which may be empty; the ports of an operator are in
        the operator's entry.
        """
        import copy

        return copy.deepcopy(self._backend.config.descriptor)

    def node_config(self) -> dict[str, Any]:
        """Return this node's `inputs` and `outputs`, as in a dataflow file."""
        config = self._backend.config
        return {
            "inputs": {entry.id: _as_written(entry) for entry in config.inputs},
            "outputs": list(config.outputs),
        }

    def run_config(self) -> NodeConfig:
        """Return the configuration that the runner sent to this node."""
        return self._backend.config

    def dataflow_id(self) -> str:
        """Return the UUID of the running dataflow."""
        return self._backend.config.dataflow_id

    def is_restart(self) -> bool:
        """Whether this process replaces one that ended."""
        return self._backend.config.restart_count > 0

    def restart_count(self) -> int:
        """Return how often the node was restarted."""
        return self._backend.config.restart_count

    def timestamp(self) -> datetime:
        """Return the current time in UTC."""
        return utc_datetime(time.time_ns())

    # --- state for the next process --------------------------------------------------------------

    def save_state(self, state: Any) -> None:
        """Keep a state for the process that follows this one; replaces an earlier one.

        The next process gets it from `load_state`: after a replacement, a reload on save, a restart
        or a crash. It is kept in memory, and lost if the runner of the dataflow or the machine
        fails. Usually called after the event loop has ended with STOP; it may be called at any time
        before `close`. `state`: bytes or another buffer, or a pyarrow array. Raises RuntimeError
        for another type or a closed node, OSError if memory runs out.
        """
        self._backend.save_state(state)

    def load_state(self) -> Any:
        """Return what the process before this one saved with `save_state`, as bytes or as a pyarrow
        array; None at the first start and if that process saved nothing.
        """
        return self._backend.load_state()

    # --- not now ---------------------------------------------------------------------------------

    def hold_updates(self, reason: str) -> AbstractContextManager[object]:
        """Keep operators from replacing, removing or restarting this node, until `release_updates`.

        They wait, see the reason, and may force the change. It ends with the process. Also a
        context manager: `with node.hold_updates("arm is moving"): ...`. Raises RuntimeError for a
        closed node.
        """
        self._backend.send_control(messages.HoldUpdates(reason[:MAX_HOLD_REASON] or "held"))
        held = ExitStack()
        held.callback(self.release_updates)
        return held

    def release_updates(self) -> None:
        """End `hold_updates`."""
        self._backend.send_control(messages.HoldUpdates(""))

    # --- values of extensions --------------------------------------------------------------------

    def extension_store(
        self, namespace: str, key: str, value: bytes | bytearray | memoryview
    ) -> None:
        """Store a value for the other nodes of the dataflow on this machine.

        For extensions, such as transports, that hand over descriptors: dora does not interpret the
        value (at most 32 MiB). The node that stored it may replace it. It is dropped when the
        process of this node ends. Raises RuntimeError if another node has stored the key, or if
        there are too many.
        """
        self._backend.extensions.store(namespace, key, value)

    def extension_load(self, namespace: str, key: str, remove: bool = False) -> bytes | None:
        """Return a stored value, or None. `remove` drops it as well."""
        return self._backend.extensions.load(namespace, key, remove=remove)

    def extension_drop(self, namespace: str, key: str) -> None:
        """Drop a value, if it exists. Each node that stored or loaded it can see this with
        `drain_dropped_extension_keys`.
        """
        self._backend.extensions.drop(namespace, key)

    def drain_dropped_extension_keys(self, namespace: str) -> list[str]:
        """Return the keys dropped since the last call, of values that this node stored or loaded,
        each once. No event announces them.
        """
        return self._backend.extensions.drain(namespace)

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Leave the dataflow: close the outputs; messages sent before still arrive.

        If the process has further `Node` objects of this id, the last one to close leaves. The end
        of the process does the same. Any later use raises RuntimeError.
        """
        backend = self._backend
        if not isinstance(backend, Unusable):
            self._backend = Unusable(backend.config, NodeClosed, _CLOSED)
            self._finalizer.detach()
            if self._async is not None:
                self._async.wake_all()
            backend.close()

    def close_outputs(self, outputs: str | Iterable[str]) -> None:
        """End these outputs: their readers get INPUT_CLOSED."""
        self._backend.close_outputs((outputs,) if isinstance(outputs, str) else tuple(outputs))

    def stop_dataflow(self, reason: str) -> None:
        """Request a stop of the whole dataflow; every node gets STOP, this one too."""
        self._backend.send_control(messages.StopDataflow(reason))

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Node cannot be copied or sent to another process; it works only in the one that made"
            " it"
        )

    def __repr__(self) -> str:
        config = self._backend.config
        return f"<Node `{config.node_id}` of dataflow {config.dataflow_id}>"

    def _abandon(self) -> None:
        """Disable the node in a forked child, without closing or freeing anything."""
        config = self._backend.config
        self._finalizer.detach()
        self._backend = Unusable(config, NodeForked, f"node `{config.node_id}`: {_FORKED}")


_living: weakref.WeakSet[Node] = weakref.WeakSet()


def _backend_of(reference: weakref.ref[Node]) -> Backend:
    node = reference()
    if node is None:
        raise NodeClosed(_CLOSED)
    return node._backend


def _abandon_in_child() -> None:
    for node in list(_living):
        node._abandon()


def _leave_at_exit() -> None:
    # Sent messages are in the queues already; this only marks the end as intended.
    for node in list(_living):
        node._backend.leave()


os.register_at_fork(after_in_child=_abandon_in_child)
atexit.register(_leave_at_exit)


def _as_written(entry: InputConfig) -> str | dict[str, Any]:
    options: dict[str, Any] = {}
    if entry.queue_size != 10:
        options["queue_size"] = entry.queue_size
    if entry.queue_policy is not QueuePolicy.DROP_OLDEST:
        options["queue_policy"] = str(entry.queue_policy)
    if entry.input_timeout is not None:
        options["input_timeout"] = entry.input_timeout
    return {"source": entry.source, **options} if options else entry.source


def _own_copy(output: str, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        kind = type(metadata).__name__
        raise InvalidData(
            f"output `{output}`: metadata is of type {kind}; pass a dict with str keys, or None"
        )
    return dict(metadata)
