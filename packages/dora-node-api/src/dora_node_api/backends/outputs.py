"""The sending side of a connected node: encodes messages and gives them to its `Sender`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from dora_node_api.data.arrow import encode
from dora_node_api.data.metadata import encode_metadata
from dora_node_api.data.typecheck import TypeCheck
from dora_node_api.errors import DoraNodeError, InvalidData, UnknownOutput
from dora_node_api.protocol.connection import PUMP_EVERY_NS, Connection
from dora_node_api.protocol.messages import CloseOutputs, SendOutput
from dora_node_api.transport.producer.blocks import HeapBlock, heap_sample
from dora_node_api.transport.shared.layout import FLAG_FLUSH, FLAG_PROTECTED

if TYPE_CHECKING:
    from dora_node_api.transport.producer.blocks import Sample
    from dora_node_api.transport.shared.payload import Payload

PROTECTED_KEYS = ("request_id", "goal_id", "goal_status")
"""A message with one of these metadata keys is never evicted from a queue."""


class Outputs:
    """Sends on the declared outputs of a node."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sender = connection.sender
        self._reentry = connection.reentry
        self._declared = connection.config.outputs
        self._open = frozenset(self._declared)
        self._types = TypeCheck.from_environment(connection.config.output_types, self._warn)
        connection.publish = self._publish

    def _warn(self, sentence: str) -> None:
        self._connection.warn(sentence)

    def send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        """Send one message.

        If a signal handler calls this during another send, it is sent when that send returns.
        """
        reentry = self._reentry
        me = get_ident()
        if me in reentry.inside or (reentry.waiting and reentry.busy()):
            self._send_later(output, data, metadata)
            return
        try:
            reentry.inside.add(me)
            self._send(output, data, metadata)
        finally:
            # The first call: an exception of a signal handler must not leave the thread inside.
            reentry.inside.discard(me)
            if reentry.waiting:
                reentry.run_waiting()

    def _send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        if output not in self._open:
            self._warn(self._not_open(output) + " Its messages are dropped.")
            return
        connection = self._connection
        if connection.integrity.broken or time.monotonic_ns() - connection.pumped > PUMP_EVERY_NS:
            self._look_at_control()
        payload = self._encode(output, data, metadata)
        self._sender.send(output, payload, delivery_flags(metadata) if metadata else 0)

    def _encode(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> Payload:
        try:
            payload = encode(data, metadata, on_warning=self._warn)
        except TypeError as error:
            raise InvalidData(f"output `{output}`: {error}") from error
        if self._types is not None:
            self._types.check(output, data, metadata)
        return payload

    def _send_later(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        """Send after the call that a signal handler interrupted."""
        if output not in self._open:
            self._warn(self._not_open(output) + " Its messages are dropped.")
            return
        if _is_importing_pyarrow():
            later = partial(self._send, output, _own_data(data), dict(metadata or {}))
            self._reentry.submit(later)
            return
        payload = self._encode(output, data, metadata)
        payload.detach()
        flags = delivery_flags(metadata or {})
        self._reentry.submit(partial(self._sender.send, output, payload, flags))

    def _publish(self, message: SendOutput) -> None:
        """Send a message that was published through the runner; errors are only logged."""
        from dora_node_api.data.json_values import array_from_json

        output, metadata = message.output, message.metadata
        try:
            if output not in self._open:
                raise UnknownOutput(self._not_open(output))
            payload = self._encode(output, array_from_json(message.data), metadata)
            self._sender.send(output, payload, delivery_flags(metadata))
        except (TypeError, ValueError, DoraNodeError, MemoryError) as error:
            self._warn(f"a message published on output `{output}` was not sent: {error}")

    def _look_at_control(self) -> None:
        """Take in control messages, such as new routes, in a node that only sends."""
        connection = self._connection
        if connection.integrity.broken:
            connection.integrity.check()
        if time.monotonic_ns() - connection.pumped > PUMP_EVERY_NS and not connection.gone:
            connection.pump(wait=False)

    def _not_open(self, output: str) -> str:
        if output in self._declared:
            return f"Output `{output}` was closed by this node."
        declared = ", ".join(f"`{name}`" for name in self._declared) or "none"
        return f"Output `{output}` not in node's output list ({declared}); add it to `outputs`."

    def allocate_sample(self, output: str, nbytes: int, metadata: Mapping[str, Any]) -> Sample:
        """Return memory for a message to be filled in place. Raises UnknownOutput, InvalidData."""
        if output not in self._open:
            raise UnknownOutput(self._not_open(output))
        try:
            encoded = encode_metadata(metadata, on_warning=self._warn)
        except TypeError as error:
            raise InvalidData(f"output `{output}`: {error}") from error
        if self._reentry.busy():  # a signal handler that may have interrupted the sender
            return heap_sample(nbytes)
        return self._reentry.call(partial(self._sender.allocate_sample, nbytes, encoded))

    def send_sample(self, output: str, sample: Sample, metadata: Mapping[str, Any]) -> None:
        """Send a sample of `allocate_sample`."""
        flags = delivery_flags(metadata)
        sample.close_views()
        if isinstance(sample.block, HeapBlock):
            payload = self._encode(output, sample.as_memoryview(), metadata)
            sample.take_hold()
            send = partial(self._sender.send, output, payload, flags)
        else:
            send = partial(self._sender.send_sample, output, sample, flags)
        if not self._reentry.busy():
            self._look_at_control()
        self._reentry.submit(send)

    def close(self, outputs: tuple[str, ...]) -> None:
        """Report to the runner that nothing more is sent on these outputs."""
        self._open -= frozenset(outputs)
        self._reentry.submit(partial(self._connection.send, CloseOutputs(outputs)))


def _is_importing_pyarrow() -> bool:
    """Whether the interrupted call imports pyarrow, which a signal handler cannot do as well."""
    module = sys.modules.get("pyarrow")
    return module is None or getattr(module.__spec__, "_initializing", False)


def _own_data(data: Any) -> Any:
    """Return data that the caller cannot change; arrays of pyarrow are immutable."""
    if isinstance(data, bytearray | memoryview):
        view = memoryview(data)
        return memoryview(view.tobytes()).cast(view.format)  # type: ignore[call-overload]
    return data.copy() if hasattr(data, "__array_interface__") else data


def delivery_flags(metadata: Mapping[str, Any]) -> int:
    """Return the record flags that a message's metadata sets: FLAG_PROTECTED, FLAG_FLUSH."""
    protected = FLAG_PROTECTED if any(key in metadata for key in PROTECTED_KEYS) else 0
    return protected | (FLAG_FLUSH if metadata.get("flush") is True else 0)
