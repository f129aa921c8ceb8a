"""Log lines about restarts and failures of nodes."""

from __future__ import annotations

from dora_config.protocol.runner_events import (
    NodeConnected,
    NodeFailed,
    NodeRestarting,
    NodeResult,
    NodeSpawned,
)
from dora_daemon.lifecycle_lines import LifecycleLine, LifecycleLines


def test_a_restart_its_delay_and_the_return_are_a_line_each() -> None:
    lines = LifecycleLines()
    restarting = NodeRestarting(node="a", reason="exited with code 1", delay=2.0, restarts=3)
    assert lines.line(restarting) == LifecycleLine(
        "a", "warn", "exited with code 1; restart 3 in 2 s"
    )
    assert lines.line(NodeSpawned(node="a", pid=7, incarnation=2, restarts=3)) is None
    connected = NodeConnected(node="a", pid=7, incarnation=2)
    again = LifecycleLine("a", "info", "runs again after restart 3 (process 7)")
    assert lines.line(connected) == again
    assert lines.line(connected) is None, "not a restart"


def test_a_failure_is_a_line_unless_another_node_caused_it() -> None:
    lines = LifecycleLines()
    failed = NodeResult(node="a", outcome="failed", message="exited with code 1")
    assert lines.line(NodeFailed(result=failed)) == LifecycleLine(
        "a", "error", "failed: exited with code 1"
    )
    cascading = failed.model_copy(update={"outcome": "cascading"})
    assert lines.line(NodeFailed(result=cascading)) is None
