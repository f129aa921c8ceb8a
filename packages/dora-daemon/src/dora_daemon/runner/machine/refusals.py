"""Texts about processes that may not take part or are ended; pure."""

from __future__ import annotations

from collections.abc import Iterable

from dora_daemon.runner.machine.snapshot import NodeSnapshot


def broken_by(cause: str) -> str:
    """Return why nodes are stopped when node ``cause`` has broken the start barrier."""
    return f'node "{cause}" exited before connecting, so the dataflow cannot start'


def unknown_node(node: str, dataflow: str, nodes: Iterable[str]) -> str:
    """Return the message to a process of a node that is not one of ``nodes``."""
    known = ", ".join(sorted(nodes)) or "none"
    return (
        f'node "{node}" does not exist in dataflow {dataflow} on this machine (its nodes: {known})'
    )


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


def why_stalled(seconds: float, limit: float) -> str:
    """Return why a process is killed that could not run for ``seconds``."""
    return (
        f"its process could not run for {seconds:.1f} s: stopped, frozen or stuck in the kernel"
        f" (health_check_timeout {limit:g} s)"
    )


def why_corrupted(problem: str) -> str:
    """Return why a process is killed whose words on the status board make no sense."""
    return (
        f"it has overwritten its part of the dataflow's shared memory ({problem}); look for native"
        " code in it that writes beyond its buffers"
    )


def why_finished(grace: float) -> str:
    """Return the message about a node that is stopped ``grace`` s after its inputs ended."""
    return (
        f"stopping the node: it still runs {grace:g} s after all its inputs ended"
        " (finish_grace_secs)"
    )
