"""Trace context in the metadata of messages."""

from __future__ import annotations

import pyarrow as pa
import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider

from dora_node_api import MockNode
from dora_node_api.tracing import trace_context, with_trace_context

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STATE = "vendor=a:b;c"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, {}),
        ({"traceparent": PARENT}, {"traceparent": PARENT}),
        (
            {"traceparent": PARENT, "tracestate": STATE},
            {"traceparent": PARENT, "tracestate": STATE},
        ),
        ({"traceparent": 3}, {}),
        ({"open_telemetry_context": ""}, {}),
        ({"open_telemetry_context": "7632e76"}, {}),
        ({"open_telemetry_context": 5}, {}),
        ({"open_telemetry_context": f"traceparent:{PARENT}"}, {"traceparent": PARENT}),
        ({"open_telemetry_context": f"traceparent:{PARENT};"}, {"traceparent": PARENT}),
        (
            {"open_telemetry_context": f"tracestate:{STATE}\ntraceparent:{PARENT}\n"},
            {"traceparent": PARENT, "tracestate": STATE},
        ),
        (
            {"traceparent": PARENT, "open_telemetry_context": "traceparent:other"},
            {"traceparent": PARENT},
        ),
    ],
)
def test_context_of_a_message(metadata: dict[str, object], expected: dict[str, str]) -> None:
    assert trace_context(metadata) == expected


def test_context_is_added_to_metadata() -> None:
    received = {"width": 3, "traceparent": "old", "tracestate": "old"}
    assert with_trace_context({"traceparent": PARENT, "baggage": "secret"}, received) == {
        "width": 3,
        "traceparent": PARENT,
        "open_telemetry_context": f"traceparent:{PARENT}",
    }
    assert with_trace_context({}) == {}


def test_a_trace_continues_over_nodes() -> None:
    tracer = TracerProvider().get_tracer("test")
    sent = MockNode(inputs=[])
    with tracer.start_as_current_span("camera") as span:
        sender = span.get_span_context()
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        sent.send_output("image", pa.array([1]), with_trace_context(carrier))
    received = MockNode(inputs=[("image", pa.array([1]))], metadata=with_trace_context(carrier))
    event = next(iter(received))
    context = propagate.extract(trace_context(event["metadata"]))
    found = trace.get_current_span(context).get_span_context()
    assert (found.trace_id, found.span_id) == (sender.trace_id, sender.span_id)
