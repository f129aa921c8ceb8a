"""Trace context of messages: continue an OpenTelemetry trace from node to node.

The context travels in a message's metadata as `traceparent` and `tracestate` (W3C Trace Context),
and as `open_telemetry_context` for nodes of dora-rs. OpenTelemetry itself is not needed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KEYS = ("traceparent", "tracestate")
_DORA_RS = "open_telemetry_context"


def trace_context(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the trace context of a received message, for `opentelemetry.propagate.extract`.

    Empty if the sender has set none.
    """
    found = {key: metadata[key] for key in _KEYS if isinstance(metadata.get(key), str)}
    text = metadata.get(_DORA_RS)
    if "traceparent" in found or not isinstance(text, str):
        return found
    # dora-rs separates the entries by newlines, older versions by semicolons.
    entries = text.split("\n" if "\n" in text else ";")
    pairs = (entry.partition(":") for entry in entries)
    return {key: value for key, _, value in pairs if key in _KEYS and value}


def with_trace_context(
    context: Mapping[str, str], metadata: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return ``metadata`` with a context that `opentelemetry.propagate.inject` has filled.

    A context in ``metadata`` is replaced, so that the metadata of an input can be passed on.
    """
    kept = {key: value for key, value in (metadata or {}).items() if key not in (*_KEYS, _DORA_RS)}
    kept |= {key: context[key] for key in _KEYS if key in context}
    if "traceparent" in context:
        kept[_DORA_RS] = f"traceparent:{context['traceparent']}"
    return kept
