"""`MockNode`: replaces `Node` in unit tests, with given inputs and recorded outputs.

node = MockNode([("tick", pa.array([0]))])
main(node)
assert node.outputs["result"][0].to_pylist() == [42]
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from dora_node_api.backends.backend import Backend, check_timeout
from dora_node_api.backends.sample import SampleHandler
from dora_node_api.backends.test_mode import as_array, sent_metadata
from dora_node_api.ids import uuid7
from dora_node_api.logging.log_methods import LogMethods
from dora_node_api.protocol.extensions import local_extensions
from dora_node_api.transport.producer.blocks import heap_sample

if TYPE_CHECKING:
    from dora_node_api.events import EventStream
    from dora_node_api.protocol.session import Event
    from dora_node_api.transport.producer.blocks import Sample

__all__ = ["MockNode"]


class MockNode(LogMethods):
    """Has the methods of `Node`; returns the given events, then STOP, then None.

    `inputs`: pairs of an input id and its data, each an INPUT event with a copy of `metadata`, or
    whole event dictionaries, for metadata of their own and for other events: `{"type": "INPUT",
    "id": "image", "value": array, "metadata": {"frame": 7}}`. STOP is appended if it is missing.
    `service_responses`: by output, the payloads of the responses to its requests, in order.
    `state`: what `load_state` returns.
    """

    def __init__(
        self,
        inputs: Iterable[tuple[str, Any] | Event] = (),
        metadata: Mapping[str, Any] | None = None,
        *,
        dataflow_descriptor: dict[str, Any] | None = None,
        dataflow_id: str | None = None,
        node_config: dict[str, Any] | None = None,
        is_restart: bool = False,
        restart_count: int = 0,
        service_responses: Mapping[str, Sequence[Any]] | None = None,
        state: Any = None,
    ) -> None:
        events: list[Event] = []
        for number, item in enumerate(inputs):
            match item:
                case dict():
                    events.append(_whole_event(number, item, metadata))
                case (str(name), data):
                    events.append(_input_event(name, data, metadata))
                case _:
                    raise TypeError(
                        "MockNode takes pairs of an input id and its data, or whole events:"
                        ' [("image", pyarrow.array([1])), {"type": "INPUT", "id": "image", "value":'
                        f' pyarrow.array([1]), "metadata": {{"key": 1}}}}]; found {item!r:.80}'
                    )
        if not any(event.get("type") == "STOP" for event in events):
            events.append({"type": "STOP", "id": "ALL_INPUTS_CLOSED"})
        self._events = deque(events)
        self._descriptor = dataflow_descriptor or {}
        self._dataflow_id = dataflow_id or ""
        self._node_config = node_config or {}
        self._restart_count = restart_count or int(is_restart)
        self._answers = {name: deque(data) for name, data in (service_responses or {}).items()}
        self.node_id = "mock"
        self.outputs: dict[str, list[Any]] = {}
        """By output: the sent data, in order, with those of requests and responses."""
        self.output_metadata: dict[str, list[dict[str, Any]]] = {}
        """By output: the sent metadata, in order."""
        self.logs: list[dict[str, Any]] = []
        self.service_requests: list[dict[str, Any]] = []
        self.service_responses_sent: list[dict[str, Any]] = []
        self.closed_outputs: list[str] = []
        self.stop_reasons: list[str] = []
        self.saved_state: Any = None
        """Last state that was saved."""
        self._state = state
        self._extensions = local_extensions(self.node_id)

    # --- receiving -------------------------------------------------------------------------------

    def next(self, timeout: float | None = None) -> Event | None:
        """Return the next event, None after the last. Never waits."""
        if timeout is not None:
            check_timeout(timeout)
        return self._events.popleft() if self._events else None

    def try_recv(self) -> Event | None:
        """As `next`."""
        return self.next()

    async def recv_async(self, timeout: float | None = None) -> Event | None:  # noqa: ASYNC109
        """As `next`."""
        return self.next(timeout)

    def drain(self) -> list[Event]:
        """Return all remaining events."""
        events = list(self._events)
        self._events.clear()
        return events

    def is_empty(self) -> bool:
        """Whether no event remains."""
        return not self._events

    def __iter__(self) -> MockNode:
        return self

    def __next__(self) -> Event:
        if not self._events:
            raise StopIteration
        return self._events.popleft()

    def __aiter__(self) -> MockNode:
        return self

    async def __anext__(self) -> Event:
        if not self._events:
            raise StopAsyncIteration
        return self._events.popleft()

    def events(self) -> EventStream:
        """Return the same stream as typed events."""
        from dora_node_api.events import EventStream

        return EventStream(self)

    def merge_external_events(self, subscription: object) -> NoReturn:
        """Raises NotImplementedError, as `Node` does."""
        raise NotImplementedError("merge_external_events: this version has no ROS 2 bridge")

    # --- sending ---------------------------------------------------------------------------------

    def send_output(
        self, output_id: str, data: Any, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Record the data in `outputs`. Raises RuntimeError for data that `Node` cannot send."""
        kept = _as_sent(output_id, data, metadata)
        self.outputs.setdefault(output_id, []).append(kept)
        self.output_metadata.setdefault(output_id, []).append(dict(metadata or {}))

    def send_output_raw(
        self, output_id: str, data_length: int, metadata: Mapping[str, Any] | None = None
    ) -> SampleHandler:
        """Return memory to fill; the sent bytes are recorded in `outputs`."""
        sample = heap_sample(data_length)
        return SampleHandler(_MockBackend(self), output_id, sample, metadata or {})

    def send_service_request(
        self, output_id: str, data: Any, metadata: Mapping[str, Any] | None = None
    ) -> str:
        """Record the request in `service_requests` and `outputs`; its prepared response comes
        before STOP.
        """
        request = uuid7()
        self.send_output(output_id, data, {**(metadata or {}), "request_id": request})
        sent = self.outputs[output_id][-1]
        kept = {"output_id": output_id, "data": sent, "metadata": dict(metadata or {})}
        self.service_requests.append({**kept, "request_id": request})
        if answers := self._answers.get(output_id):
            event = _input_event(output_id, answers.popleft(), {"request_id": request})
            for place, waiting in enumerate(self._events):
                if waiting.get("type") == "STOP":
                    self._events.insert(place, event)
                    break
            else:
                self._events.append(event)
        return request

    def send_service_response(self, output_id: str, data: Any, metadata: Mapping[str, Any]) -> None:
        """Record the response in `service_responses_sent` and `outputs`."""
        self.send_output(output_id, data, metadata)
        sent = self.outputs[output_id][-1]
        kept = {"output_id": output_id, "data": sent, "metadata": dict(metadata)}
        self.service_responses_sent.append({**kept, "request_id": metadata.get("request_id")})

    # --- logging ---------------------------------------------------------------------------------

    def log(
        self,
        level: str,
        message: str,
        target: str | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the entry in `logs`."""
        entry = {"level": level, "message": message, "target": target}
        self.logs.append({**entry, "fields": dict(fields or {})})

    # --- the dataflow ----------------------------------------------------------------------------

    def dataflow_descriptor(self) -> dict[str, Any]:
        """Return the value passed to the constructor."""
        return dict(self._descriptor)

    def dataflow_id(self) -> str:
        """Return the value passed to the constructor."""
        return self._dataflow_id

    def node_config(self) -> dict[str, Any]:
        """Return the value passed to the constructor."""
        return dict(self._node_config)

    def is_restart(self) -> bool:
        """Return the value passed to the constructor."""
        return self._restart_count > 0

    def restart_count(self) -> int:
        """Return the value passed to the constructor."""
        return self._restart_count

    def timestamp(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.now(UTC)

    def save_state(self, state: Any) -> None:
        """Record the state in `saved_state`."""
        self.saved_state = state

    def load_state(self) -> Any:
        """Return the given state."""
        return self._state

    def extension_store(
        self, namespace: str, key: str, value: bytes | bytearray | memoryview
    ) -> None:
        """As in `Node`; no other node uses the values."""
        self._extensions.store(namespace, key, value)

    def extension_load(self, namespace: str, key: str, remove: bool = False) -> bytes | None:
        """As in `Node`."""
        return self._extensions.load(namespace, key, remove=remove)

    def extension_drop(self, namespace: str, key: str) -> None:
        """As in `Node`."""
        self._extensions.drop(namespace, key)

    def drain_dropped_extension_keys(self, namespace: str) -> list[str]:
        """As in `Node`."""
        return self._extensions.drain(namespace)

    def close_outputs(self, outputs: str | Iterable[str]) -> None:
        """Record the names in `closed_outputs`."""
        self.closed_outputs.extend((outputs,) if isinstance(outputs, str) else outputs)

    def stop_dataflow(self, reason: str) -> None:
        """Record the reason in `stop_reasons`."""
        self.stop_reasons.append(reason)

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> MockNode:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class _MockBackend(Backend):
    """Records the samples of a MockNode."""

    def __init__(self, node: MockNode) -> None:
        self._node = node

    def send_sample(self, output: str, sample: Sample, metadata: Mapping[str, Any]) -> None:
        self._node.send_output(output, bytes(sample.as_buffer()), metadata)


def _as_sent(output: str, data: Any, metadata: Mapping[str, Any] | None) -> Any:
    """Return a copy of `data`, which the node may change later. Raises as `Node` would."""
    as_array(output, data)
    sent_metadata(output, metadata, warnings.warn)
    return data.copy() if isinstance(data, bytearray) or hasattr(data, "dtype") else data


def _whole_event(number: int, event: Event, metadata: Mapping[str, Any] | None) -> Event:
    needed = ("type", "id", "value") if event.get("type") == "INPUT" else ("type",)
    for key in needed:
        if key not in event:
            raise TypeError(f"event {number} of MockNode has no key `{key}`; found {event!r:.80}")
    if event["type"] != "INPUT":
        return dict(event)
    own = event.get("metadata", metadata)
    if own is not None and not isinstance(own, Mapping):
        kind = type(own).__name__
        raise TypeError(f"event {number} of MockNode: key `metadata` must be a dict, not {kind}")
    return {**event, "metadata": dict(own or {})}


def _input_event(name: str, data: Any, metadata: Mapping[str, Any] | None) -> Event:
    return {"type": "INPUT", "id": name, "value": data, "metadata": dict(metadata or {})}
