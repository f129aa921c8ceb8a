"""Resolved nodes for tests of the runner, in a line each."""

from __future__ import annotations

from typing import Any

from dora_config.dataflow.resolved import ResolvedInput, ResolvedNode, RestartSettings
from dora_config.dataflow.sources import LogSource, OutputSource, TimerSource

ALWAYS = RestartSettings(policy="always")
ON_FAILURE = RestartSettings(policy="on-failure", delay=1.0, max_delay=4.0)


def node(
    node_id: str,
    *,
    reads: str = "",
    outputs: str = "",
    timer: bool = False,
    logs: bool = False,
    restart: RestartSettings | None = None,
    **fields: Any,
) -> ResolvedNode:
    """``reads`` lists sources ("a/x b/y"), ``outputs`` names ("x y")."""
    inputs = {
        text.replace("/", "_"): ResolvedInput(
            source=OutputSource(node=text.partition("/")[0], output=text.partition("/")[2])
        )
        for text in reads.split()
    }
    if timer:
        inputs["tick"] = ResolvedInput(source=TimerSource(interval_ns=10**8))
    if logs:
        inputs["logs"] = ResolvedInput(source=LogSource())
    fields.setdefault("path", f"{node_id}.py")
    return ResolvedNode(
        id=node_id,
        inputs=inputs,
        outputs=tuple(outputs.split()),
        restart=restart or RestartSettings(),
        **fields,
    )
