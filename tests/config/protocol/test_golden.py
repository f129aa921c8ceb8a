"""Formats of the control plane: their bytes change only with a new version."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.golden import check_golden
from support.message_examples import examples

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
    "ProgramVersion.protocol": PROTOCOL_VERSION,
}
CODE_SET = CodeSet(
    files=(CodeFile(path="a/b.py", sha256=DIGEST, size=7, executable=True),),
    links=(CodeLink(path="c", target="a/b.py"),),
)


def _control(codec: Any, union: Any) -> list[bytes]:
    return [codec.encode(message).encode() for message in examples(union, OVERRIDES)]


def _runner_lines() -> list[bytes]:
    parts = {
        "request": runner.RunnerRequest,
        "reply": runner.RunnerReply,
        "notice": runner.RunnerEvent,
    }
    envelopes = [
        runner.Envelope.model_validate({"id": 7, part: message})
        for part, union in parts.items()
        for message in examples(union, OVERRIDES)
    ]
    return [runner.encode_line(envelope).rstrip(b"\n") for envelope in envelopes]


def _models(model: Any) -> list[bytes]:
    return [message.model_dump_json().encode() for message in examples(model, OVERRIDES)]


def _rest_lines() -> list[bytes]:
    lines = []
    for one in OPERATIONS:
        for part, model in (("arguments", one.arguments), ("result", one.result)):
            for example in examples(model, OVERRIDES):
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
    f"code-set-{PROTOCOL_VERSION}": lambda: [CODE_SET.text()],
}


@pytest.mark.parametrize("name", FORMATS)
def test_format_changes_only_with_its_version(name: str) -> None:
    check_golden(GOLDEN / f"{name}.jsonl", FORMATS[name]())


DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    "client-frames": control.CLIENT_CODEC.decode,
    "server-frames": control.SERVER_CODEC.decode,
    "to-coordinator": daemon.TO_COORDINATOR.decode,
    "to-daemon": daemon.TO_DAEMON.decode,
    "runner": runner.decode_line,
    "run-plan": runner.RunPlan.model_validate_json,
    "inspector": StreamTopics.model_validate_json,
    "rest": _decode_rest,
    "code-set": CodeSet.model_validate_json,
}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.jsonl")), ids=lambda path: path.stem)
def test_messages_of_every_stored_version_are_understood(path: Path) -> None:
    """Neighbouring minor versions are compatible; remove a file when its support ends."""
    decode = DECODERS[path.stem.rpartition("-")[0]]
    for line in path.read_bytes().splitlines():
        assert not isinstance(decode(line), runner.UnknownMessage), line[:120]
