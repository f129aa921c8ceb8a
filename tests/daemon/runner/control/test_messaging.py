"""Limits of parameters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.runner.nodes import node
from support.runner.simulation import Simulation

from dora_config.protocol.runner import DeleteParam, GetParams, SetParam
from dora_daemon.runner.control.messaging import (
    MAX_KEY_BYTES,
    MAX_PARAMS,
    MAX_VALUE_BYTES,
    NodeMessaging,
)
from dora_daemon.runner.errors import RequestRefused
from dora_daemon.runner.nodes.local_nodes import LocalNode
from dora_daemon.runner.nodes.services import NodeServices


@pytest.fixture
def sent() -> list[Any]:
    return []


@pytest.fixture
def messaging(sent: list[Any]) -> NodeMessaging:
    program = SimpleNamespace(spec=node("a"))
    local = LocalNode(cast("Any", program), cast("Any", None))
    connection = SimpleNamespace(closed=False, send=lambda message, _: sent.append(message))
    local.connection = cast("Any", connection)
    services = SimpleNamespace(nodes={"a": local}, registry=None)
    state = Simulation([node("a")]).state
    return NodeMessaging(state, cast("NodeServices", services))


def set_param(messaging: NodeMessaging, key: str, value: Any) -> None:
    messaging.set_param(SetParam(node="a", key=key, value=value))


def test_the_limit_counts_bytes_of_the_value(messaging: NodeMessaging, sent: list[Any]) -> None:
    quotes = 2
    set_param(messaging, "k", "ä" * ((MAX_VALUE_BYTES - quotes) // 2))
    assert len(sent) == 1
    with pytest.raises(RequestRefused, match=f"{MAX_VALUE_BYTES + 2} bytes as JSON, at most"):
        set_param(messaging, "k", "ä" * (MAX_VALUE_BYTES // 2))


def test_number_of_parameters_is_limited(messaging: NodeMessaging) -> None:
    for number in range(MAX_PARAMS):
        set_param(messaging, str(number), number)
    set_param(messaging, "7", "again")
    with pytest.raises(RequestRefused, match=f'node "a" has {MAX_PARAMS} parameters'):
        set_param(messaging, "more", 1)
    messaging.delete_param(DeleteParam(node="a", key="0"))
    set_param(messaging, "more", 1)
    assert len(messaging.params(GetParams(node="a")).values) == MAX_PARAMS


def test_bytes_of_a_key_are_limited(messaging: NodeMessaging, sent: list[Any]) -> None:
    for key in ("", "k" * (MAX_KEY_BYTES + 1), "ä" * (MAX_KEY_BYTES // 2) + "k"):
        with pytest.raises(RequestRefused, match=f"must have 1 to {MAX_KEY_BYTES} bytes"):
            set_param(messaging, key, 1)
    assert sent == []
    for key in ("k", "k" * MAX_KEY_BYTES, "ä" * (MAX_KEY_BYTES // 2)):
        set_param(messaging, key, 1)
        assert messaging.params(GetParams(node="a")).values[key] == 1
    assert len(sent) == 3
