"""The sending side of a connected node: encodes messages and gives them to its `Sender`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

from dora_node_api.backends.backend import Backend
from dora_node_api.data.arrow import encode
from dora_node_api.data.metadata import encode_metadata
from dora_node_api.data.typecheck import OutputTypeCheck
from dora_node_api.errors import DoraNodeError, InvalidData, UnknownOutput
from dora_node_api.protocol.connection import PUMP_EVERY_NS, ConnectionToRunner
from dora_node_api.protocol.messages import CloseOutputs, SendOutput
from dora_node_api.transport.shared.interruption import interrupting
from dora_node_api.transport.shared.layout import FLAG_FLUSH, FLAG_PROTECTED

if TYPE_CHECKING:
    from dora_node_api.transport.producer.blocks import SampleMemory

PROTECTED_KEYS = ("request_id", "goal_id", "goal_status")
"""A message with one of these metadata keys is never evicted from a queue."""


class Outputs(Backend):
    """Sends on the declared outputs of a node."""

    def start_outputs(self, connection: ConnectionToRunner) -> None:
        """Prepare to send."""
        self._connection = connection
        self._sender = connection.sender
        self._calls = connection.calls
        self._open = frozenset(connection.config.outputs)
        self._warn = connection.warn
        self._types = OutputTypeCheck.from_environment(
            connection.config.output_types, connection.config.output_structures, self._warn
        )
        connection.publish = self._publish

    def send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        """Send one message. Raises RuntimeError in a signal handler that interrupted a call."""
        calls = self._calls
        me = get_ident()
        if me in calls.inside:
            raise interrupting()
        try:  # as `Calls.run`, without calls
            calls.inside.add(me)
            if output not in self._open:
                self._warn(self.not_open(output) + " Its messages are dropped.")
                return
            if time.monotonic_ns() - self._connection.pumped > PUMP_EVERY_NS:
                self._look_at_control()
            self._send(output, data, metadata)
        finally:
            calls.inside.discard(me)
            if calls.closing:
                calls.close()

    def _send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        try:
            payload = encode(data, metadata, on_warning=self._warn)
        except TypeError as error:
            raise InvalidData(f"output `{output}`: {error}") from None
        if self._types is not None:
            self._types.check(output, data, metadata)
        self._sender.send(output, payload, delivery_flags(metadata) if metadata else 0)
        self._connection.sent = True

    def _publish(self, message: SendOutput) -> None:
        """Send a message that was published through the runner; errors are only logged."""
        from dora_node_api.data.json_values import array_from_json

        output, metadata = message.output, message.metadata
        try:
            if output not in self._open:
                raise UnknownOutput(self.not_open(output))
            self._send(output, array_from_json(message.data), metadata)
        except (TypeError, ValueError, DoraNodeError, MemoryError) as error:
            self._warn(f"a message published on output `{output}` was not sent: {error}")

    def _look_at_control(self) -> None:
        """Take in control messages, such as new routes, in a node that only sends."""
        connection = self._connection
        if time.monotonic_ns() - connection.pumped > PUMP_EVERY_NS and not connection.gone:
            connection.pump(wait=False)

    def allocate_sample(
        self, output: str, nbytes: int, metadata: Mapping[str, Any]
    ) -> SampleMemory:
        if output not in self._open:
            raise UnknownOutput(self.not_open(output))
        try:
            encoded = encode_metadata(metadata, on_warning=self._warn)
        except TypeError as error:
            raise InvalidData(f"output `{output}`: {error}") from None
        return self._calls.run(partial(self._sender.allocate_sample, nbytes, encoded))

    def send_sample(self, output: str, sample: SampleMemory, metadata: Mapping[str, Any]) -> None:
        flags = delivery_flags(metadata)
        self._calls.run(partial(self._send_sample, output, sample, flags))

    def _send_sample(self, output: str, sample: SampleMemory, flags: int) -> None:
        sample.close_views()
        self._look_at_control()
        self._sender.send_sample(output, sample, flags)
        self._connection.sent = True

    def close_outputs(self, outputs: tuple[str, ...]) -> None:
        self._calls.run(partial(self._close_outputs, outputs))

    def _close_outputs(self, outputs: tuple[str, ...]) -> None:
        self._open -= frozenset(outputs)
        self._connection.send(CloseOutputs(outputs))


def delivery_flags(metadata: Mapping[str, Any]) -> int:
    """Return the record flags that a message's metadata sets: FLAG_PROTECTED, FLAG_FLUSH."""
    protected = FLAG_PROTECTED if any(key in metadata for key in PROTECTED_KEYS) else 0
    return protected | (FLAG_FLUSH if metadata.get("flush") is True else 0)
