"""Formats of the control plane: their bytes change only with a new version."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.golden import check_golden
from support.message_examples import ALL_DATAFLOWS, ONE_DATAFLOW, examples, without_defaults

from dora_config.dataflow.resolved import DATAFLOW_FORMAT, ResolvedDataflow, ResolvedNode
from dora_config.protocol import control, daemon, runner
from dora_config.protocol.code import CodeFile, CodeLink, CodeSet
from dora_config.protocol.envelope import PROTOCOL_VERSION
from dora_config.protocol.rest.operations import OPERATIONS
from dora_config.protocol.topics import StreamTopics

GOLDEN = Path(__file__).parent / "golden"
UUID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
DIGEST = "ab" * 32
OVERRIDES = {
    r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$": UUID,
    r"^[0-9a-f]{64}$": DIGEST,
    r"^([A-Za-z0-9_-][A-Za-z0-9_.-]{0,127})?$": "workspace",
    r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,240}\.mcap$": "robot-0.mcap",
    "DataflowSpec.name": "name",
    "Rollout.then": "25%",
    "ProgramVersion.protocol": PROTOCOL_VERSION,
}
MESSAGES = {**OVERRIDES, **ONE_DATAFLOW}
CODE_SET = CodeSet(
    files=(CodeFile(path="a/b.py", sha256=DIGEST, size=7, executable=True),),
    links=(CodeLink(path="c", target="a/b.py"),),
)


def _control(codec: Any, union: Any) -> list[bytes]:
    return [codec.encode(message).encode() for message in examples(union, MESSAGES)]


def _runner_lines() -> list[bytes]:
    parts = {
        "request": runner.RunnerRequest,
        "reply": runner.RunnerReply,
        "notice": runner.RunnerEvent,
    }
    envelopes = [
        runner.Envelope.model_validate({"id": 7, part: message})
        for part, union in parts.items()
        for message in examples(union, MESSAGES)
    ]
    return [runner.encode_line(envelope).rstrip(b"\n") for envelope in envelopes]


def _models(model: Any) -> list[bytes]:
    return [message.model_dump_json().encode() for message in examples(model, MESSAGES)]


def _rest_lines() -> list[bytes]:
    lines = []
    for one in OPERATIONS:
        for part, model in (("arguments", one.arguments), ("result", one.result)):
            for example in examples(model, MESSAGES):
                fact = {
                    "operation": one.name,
                    part: example.model_dump(mode="json", exclude={"kind"}),
                }
                lines.append(json.dumps(fact).encode())
    return lines


def _decode_rest(line: bytes) -> Any:
    fact = json.loads(line)
    operation = next(one for one in OPERATIONS if one.name == fact["operation"])
    if "arguments" in fact:
        return operation.arguments.model_validate(fact["arguments"])
    return operation.result.model_validate(fact["result"])


RUNNER_VERSION = ".".join(str(part) for part in runner.RUNNER_PROTOCOL)
DATAFLOW_VERSION = ".".join(str(part) for part in DATAFLOW_FORMAT)
FORMATS: Mapping[str, Callable[[], list[bytes]]] = {
    f"client-frames-{PROTOCOL_VERSION}": lambda: _control(
        control.CLIENT_CODEC, control.ClientFrame
    ),
    f"server-frames-{PROTOCOL_VERSION}": lambda: _control(
        control.SERVER_CODEC, control.ServerFrame
    ),
    f"to-coordinator-{PROTOCOL_VERSION}": lambda: _control(
        daemon.TO_COORDINATOR, daemon.DaemonMessage
    ),
    f"to-daemon-{PROTOCOL_VERSION}": lambda: _control(daemon.TO_DAEMON, daemon.CoordinatorMessage),
    f"runner-{RUNNER_VERSION}": _runner_lines,
    f"run-plan-{RUNNER_VERSION}": lambda: _models(runner.RunPlan),
    f"inspector-{PROTOCOL_VERSION}": lambda: _models(StreamTopics),
    f"rest-{PROTOCOL_VERSION}": _rest_lines,
    f"dataflow-{DATAFLOW_VERSION}": lambda: [
        one.model_dump_json().encode()
        for one in examples(ResolvedDataflow, {**OVERRIDES, **ALL_DATAFLOWS})
    ],
    f"code-set-{PROTOCOL_VERSION}": lambda: [CODE_SET.text()],
}


@pytest.mark.parametrize("name", FORMATS)
def test_format_changes_only_with_its_version(name: str) -> None:
    lines = FORMATS[name]()
    if not name.startswith("dataflow-"):
        lines = [without_defaults(line) for line in lines]
    check_golden(GOLDEN / f"{name}.jsonl", lines)


def test_a_field_of_a_node_belongs_to_one_format() -> None:
    """A new one raises `DATAFLOW_FORMAT` and writes one golden file."""
    found = [path.name for path in GOLDEN.glob("*.jsonl") if b"path_sha256" in path.read_bytes()]
    assert found == [f"dataflow-{DATAFLOW_VERSION}.jsonl"]


def test_a_node_of_a_newer_major_version_is_refused() -> None:
    major, minor = DATAFLOW_FORMAT
    node = {"id": "a", "new": 1}
    assert ResolvedNode.model_validate({**node, "format": (major, minor + 1)}).id == "a"
    with pytest.raises(ValidationError, match=f"format {major + 1}, expected {major}"):
        ResolvedNode.model_validate({**node, "format": (major + 1, 0)})


DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    "client-frames": control.CLIENT_CODEC.decode,
    "server-frames": control.SERVER_CODEC.decode,
    "to-coordinator": daemon.TO_COORDINATOR.decode,
    "to-daemon": daemon.TO_DAEMON.decode,
    "runner": runner.decode_line,
    "run-plan": runner.RunPlan.model_validate_json,
    "inspector": StreamTopics.model_validate_json,
    "rest": _decode_rest,
    "dataflow": ResolvedDataflow.model_validate_json,
    "code-set": CodeSet.model_validate_json,
}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.jsonl")), ids=lambda path: path.stem)
def test_messages_of_every_stored_version_are_understood(path: Path) -> None:
    """Neighbouring minor versions are compatible; remove a file when its support ends."""
    decode = DECODERS[path.stem.rpartition("-")[0]]
    for line in path.read_bytes().splitlines():
        assert not isinstance(decode(line), runner.UnknownMessage), line[:120]
