"""Texts about processes that may not take part; pure."""

from __future__ import annotations

from dora_daemon.runner.machine.snapshot import NodeSnapshot


def broken_by(cause: str) -> str:
    """Return why nodes are stopped when node ``cause`` has broken the start barrier."""
    return f'node "{cause}" exited before connecting, so the dataflow cannot start'


def why_refused(node: NodeSnapshot, pid: int) -> str:
    """Return the message to process ``pid``, which sent Hello although the node has a process."""
    if node.dynamic:
        return f'node "{node.node}" is already attached (pid {node.pid})'
    if node.connected and pid == node.pid:
        return (
            f'this process has left the dataflow as node "{node.node}": its last Node object was'
            " closed or garbage collected, which closed all outputs and inputs; keep a reference"
            " to the first Node while the process takes part"
        )
    if node.connected:
        return (
            f'node "{node.node}" is already connected as process {node.pid}; a node is one'
            " process, and its children must exchange data with it by other means"
        )
    return f'node "{node.node}" is {node.state.value}'
