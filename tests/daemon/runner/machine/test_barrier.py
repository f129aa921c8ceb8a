"""Notice about the nodes that the start of a dataflow waits for."""

from __future__ import annotations

from dora_daemon.runner.machine.barrier import MAX_NAMES, missing_notice


def test_the_notice_names_missing_nodes_up_to_a_limit() -> None:
    assert 'waiting for node "a" to connect (it has' in missing_notice(["a"])
    assert 'waiting for nodes "a", "b" to connect (they have' in missing_notice(["a", "b"])
    many = missing_notice([f"n{number}" for number in range(MAX_NAMES + 3)])
    assert f'"n{MAX_NAMES - 1}" and 3 more to connect' in many
