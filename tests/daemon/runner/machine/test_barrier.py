"""Which nodes the start of a dataflow waits for."""

from __future__ import annotations

import pytest
from support.runner.nodes import node

from dora_config.dataflow.resolved import ResolvedNode
from dora_daemon.runner.machine.barrier import (
    MAX_NAMES,
    joins_barrier,
    missing_notice,
    must_connect,
)


@pytest.mark.parametrize(
    ("spec", "joins"),
    [
        (node("a"), True),
        (node("a", outputs="x"), True),
        (node("s", kind="shell"), False),
        (node("s", kind="shell", reads="a/x"), True),
        (node("d", path="dynamic", kind="dynamic", outputs="x"), False),
    ],
)
def test_joins_barrier(spec: ResolvedNode, joins: bool) -> None:
    assert joins_barrier(spec) is joins


def test_a_node_without_ports_must_connect_only_if_others_wait() -> None:
    assert must_connect(node("a", outputs="x"), 1)
    assert must_connect(node("a"), 2)
    assert not must_connect(node("a"), 1)
    assert not must_connect(node("s", kind="shell"), 2)


def test_the_notice_names_missing_nodes_up_to_a_limit() -> None:
    assert 'waiting for node "a" to connect (it has' in missing_notice(["a"])
    assert 'waiting for nodes "a", "b" to connect (they have' in missing_notice(["a", "b"])
    many = missing_notice([f"n{number}" for number in range(MAX_NAMES + 3)])
    assert f'"n{MAX_NAMES - 1}" and 3 more to connect' in many
