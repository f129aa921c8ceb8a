"""Lines of a runner's control socket: in pieces, from other versions, invalid ones."""

from __future__ import annotations

import json

import pytest

from dora_config.protocol import runner as protocol
from dora_config.protocol.runner import (
    Envelope,
    RunnerProtocolError,
    UnknownMessage,
    decode_line,
    encode_line,
    request_line,
)
from dora_config.protocol.runner_events import DataflowFinished

MESSAGES = [
    Envelope(id=1, request=protocol.SetParam(node="n", key="k", value={"a": [1, None]})),
    Envelope(id=2, reply=protocol.Refusal(message="no")),
    Envelope(
        notice=DataflowFinished(
            result=protocol.DataflowResult(
                dataflow_id="d",
                nodes=(protocol.NodeResult(node="n", outcome="failed", message="m"),),
            )
        )
    ),
    Envelope(notice=protocol.RunnerState(phase="running", revision=1)),
    Envelope(id=3, request=protocol.SetParam(node="n", key="k", value=None)),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_line_is_decoded_to_the_same_message(message: Envelope) -> None:
    assert decode_line(encode_line(message)) == message


def test_a_request_of_a_newer_version_keeps_its_number() -> None:
    line = b'{"id": 9, "request": {"kind": "levitate"}}'
    unknown = decode_line(line)
    assert isinstance(unknown, UnknownMessage)
    assert (unknown.id, unknown.part, unknown.name) == (9, "request", "levitate")


def test_fields_of_a_newer_version_are_ignored_and_missing_ones_have_defaults() -> None:
    line = b'{"id": 1, "more": 1, "request": {"kind": "stop_dataflow", "softly": true}}'
    envelope = decode_line(line)
    assert isinstance(envelope, Envelope)
    assert envelope.request == protocol.StopAllNodes()


@pytest.mark.parametrize("line", [b"nonsense", b"[]", b"3", b"{}", b'{"id": 1}', b'{"x": {}}'])
def test_invalid_lines_are_refused(line: bytes) -> None:
    with pytest.raises(RunnerProtocolError):
        decode_line(line)


def test_a_request_line() -> None:
    assert json.loads(request_line(4, protocol.Release())) == {
        "id": 4,
        "request": {"kind": "release"},
    }


def test_results_distinguish_causes_from_cascades() -> None:
    def node(name: str, outcome: str) -> protocol.NodeResult:
        return protocol.NodeResult.model_validate({"node": name, "outcome": outcome})

    nodes = (node("a", "cascading"), node("b", "failed"), node("c", "success"))
    result = protocol.DataflowResult(dataflow_id="d", nodes=nodes)
    assert not result.ok
    assert [r.node for r in result.root_causes] == ["b"]
    assert [r.node for r in result.cascading] == ["a"]
    assert not protocol.DataflowResult(dataflow_id="d", error="x").ok
    assert protocol.DataflowResult(dataflow_id="d", nodes=nodes[2:]).ok
