"""Whether the nodes of a machine kept running across a restart of its daemon; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dora_config.protocol.snapshot import NodeSummary

Nodes = Mapping[tuple[str, str], NodeSummary]
"""Nodes with a process, by dataflow and node id."""


def node_problems(before: Nodes, after: Nodes) -> Iterator[str]:
    """Yield a sentence for each node that does not run any more, or was started again."""
    for key, node in before.items():
        now = after.get(key)
        if now is None or now.status in ("Unknown", "Failed"):
            yield f'node "{node.node}" is {"gone" if now is None else now.status}'
        elif now.pid != node.pid and now.restarts <= node.restarts:
            yield f'node "{node.node}" was started again'
