"""A coordinator whose answers have texts that would control a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel
from support.command_line import Printed
from support.message_examples import ONE_DATAFLOW, examples

from dora_cli.coordinator.client import CoordinatorClient
from dora_config.protocol.envelope import PROTOCOL_VERSION, Message, Request

A = TypeVar("A", bound=Message)
HOSTILE = "text\x1b[2J\x1b]0;owned\x07\x9b1A\u202e\udc9b\rgone"
SHOWN = r"text\u001b[2J\u001b]0;owned\u0007\u009b1A\u202e\udc9b\rgone"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]")
UUID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
VALUES: Mapping[str, Any] = {
    **ONE_DATAFLOW,
    r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$": UUID,
    r"^[0-9a-f]{64}$": "ab" * 32,
    r"^([A-Za-z0-9_-][A-Za-z0-9_.-]{0,127})?$": "workspace",
    r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,240}\.mcap$": "robot-0.mcap",
    "DataflowSpec.name": "name",
    "Rollout.then": "25%",
    "ProgramVersion.protocol": PROTOCOL_VERSION,
}


def hostile(value: Any) -> Any:
    """Return a value with all its free texts replaced, whatever its models allow."""
    match value:
        case "text":
            return HOSTILE
        case BaseModel():
            changed = {name: hostile(one) for name, one in value.__dict__.items()}
            return value.model_construct(**changed)
        case dict():
            return {hostile(key): hostile(one) for key, one in value.items()}
        case tuple() | list():
            return type(value)(hostile(one) for one in value)
    return value


@pytest.fixture
def hostile_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of a coordinator whose texts contain escape sequences."""

    def request(_client: CoordinatorClient, request: Request[A], *_: object, **__: object) -> Any:
        return hostile(examples(request.answer_type(), VALUES)[-1])

    monkeypatch.setattr(CoordinatorClient, "connect", lambda _client: None)
    monkeypatch.setattr(CoordinatorClient, "request", request)
    monkeypatch.setattr(CoordinatorClient, "follow", request)


def check(printed: Printed, *, has_text: bool = True) -> None:
    """Check what a command has shown of the answers of a hostile coordinator."""
    shown = printed.out + printed.err
    assert CONTROL.search(shown) is None
    assert "unexpected error" not in shown
    if has_text:
        assert r"\u001b[2J" in shown
