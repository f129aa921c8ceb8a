"""`MockNode`: replaces `Node` in unit tests, with given inputs and recorded outputs.

node = MockNode([("tick", pa.array([0]))])
main(node)
assert node.outputs["result"][0].to_pylist() == [42]
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dora_node_api.backends.backend import Backend
from dora_node_api.backends.test_mode import as_array, sent_metadata
from dora_node_api.node import Node
from dora_node_api.protocol.messages import Message, NodeConfig, StopDataflow

if TYPE_CHECKING:
    from dora_node_api.protocol.session import Event

__all__ = ["MockNode"]


class MockNode(Node):
    """A `Node` that returns the given events, then STOP, then None, and never waits.

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
        events = [_event(number, item, metadata) for number, item in enumerate(inputs)]
        if not any(event.get("type") == "STOP" for event in events):
            events.append({"type": "STOP", "id": "ALL_INPUTS_CLOSED"})
        config = NodeConfig(
            dataflow_id=dataflow_id or "",
            node_id="mock",
            restart_count=restart_count or int(is_restart),
            descriptor=dataflow_descriptor or {},
        )
        backend = _MockBackend(config, deque(events))
        self._backend = backend
        self._async = None
        self._events = backend.events
        self._node_config = node_config or {}
        self._answers = {name: deque(data) for name, data in (service_responses or {}).items()}
        self._state = state
        self.outputs = backend.outputs
        """Sent data by output, in order, including requests and responses."""
        self.output_metadata = backend.output_metadata
        """Sent metadata by output, in order."""
        self.logs: list[dict[str, Any]] = []
        self.service_requests: list[dict[str, Any]] = []
        self.service_responses_sent: list[dict[str, Any]] = []
        self.closed_outputs = backend.closed_outputs
        self.stop_reasons = backend.stop_reasons
        self.saved_state: Any = None
        """Last state that was saved."""

    def send_service_request(
        self, output_id: str, data: Any, metadata: Mapping[str, Any] | None = None
    ) -> str:
        """Record the request in `service_requests` and `outputs`; its prepared response comes
        before STOP.
        """
        request = super().send_service_request(output_id, data, metadata)
        self.service_requests.append(self._last_sent(output_id, metadata, request))
        if answers := self._answers.get(output_id):
            kinds = [event.get("type") for event in self._events]
            place = kinds.index("STOP") if "STOP" in kinds else len(kinds)
            answer = _input_event(output_id, answers.popleft(), {"request_id": request})
            self._events.insert(place, answer)
        return request

    def send_service_response(self, output_id: str, data: Any, metadata: Mapping[str, Any]) -> None:
        """Record the response in `service_responses_sent` and `outputs`."""
        super().send_service_response(output_id, data, metadata)
        request = metadata.get("request_id")
        self.service_responses_sent.append(self._last_sent(output_id, metadata, request))

    def _last_sent(
        self, output: str, metadata: Mapping[str, Any] | None, request: str | None
    ) -> dict[str, Any]:
        data = self.outputs[output][-1]
        own = dict(metadata or {})
        return {"output_id": output, "data": data, "metadata": own, "request_id": request}

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

    def node_config(self) -> dict[str, Any]:
        """Return the value passed to the constructor."""
        return dict(self._node_config)

    def save_state(self, state: Any) -> None:
        """Record the state in `saved_state`."""
        self.saved_state = state

    def load_state(self) -> Any:
        """Return the given state."""
        return self._state

    def close(self) -> None:
        """Do nothing."""


class _MockBackend(Backend):
    """Returns given events, and keeps what is sent."""

    def __init__(self, config: NodeConfig, events: deque[Event]) -> None:
        self.config = config
        self.events = events
        self.outputs: dict[str, list[Any]] = {}
        self.output_metadata: dict[str, list[dict[str, Any]]] = {}
        self.closed_outputs: list[str] = []
        self.stop_reasons: list[str] = []
        self._taken = 0

    def clock_ns(self) -> int:
        """Return a time that passes with each event only, by a microsecond."""
        return self._taken * 1000

    @property
    def ended(self) -> bool:
        return not self.events

    def is_empty(self) -> bool:
        return not self.events

    def next_event(self, timeout: float | None) -> Event | None:
        self._taken += 1
        return self.events.popleft() if self.events else None

    def poll_event(self) -> Event | None:
        return self.next_event(None)

    def send(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        kept = _as_sent(output, data, metadata)
        self.outputs.setdefault(output, []).append(kept)
        self.output_metadata.setdefault(output, []).append(dict(metadata or {}))

    def warn(self, message: str) -> None:
        warnings.warn(message, stacklevel=4)

    def close_outputs(self, outputs: tuple[str, ...]) -> None:
        self.closed_outputs.extend(outputs)

    def send_control(self, message: Message) -> None:
        if isinstance(message, StopDataflow):
            self.stop_reasons.append(message.reason)


def _as_sent(output: str, data: Any, metadata: Mapping[str, Any] | None) -> Any:
    """Return a copy of `data`, which the node may change later. Raises as `Node` would."""
    as_array(output, data)
    sent_metadata(output, metadata, warnings.warn)
    return data.copy() if isinstance(data, bytearray) or hasattr(data, "dtype") else data


def _event(number: int, item: Any, metadata: Mapping[str, Any] | None) -> Event:
    match item:
        case dict():
            return _whole_event(number, item, metadata)
        case (str(name), data):
            return _input_event(name, data, metadata)
        case _:
            raise TypeError(
                "MockNode takes pairs of an input id and its data, or whole events:"
                ' [("image", pyarrow.array([1])), {"type": "INPUT", "id": "image", "value":'
                f' pyarrow.array([1]), "metadata": {{"key": 1}}}}]; found {item!r:.80}'
            )


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
