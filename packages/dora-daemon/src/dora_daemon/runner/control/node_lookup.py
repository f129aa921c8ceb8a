"""Nodes of the running dataflow by name, for requests."""

from __future__ import annotations

from collections.abc import Callable

from dora_config.protocol.runner_events import DATAFLOW_ENDED
from dora_daemon.runner.errors import PartEnds, RequestRefused
from dora_daemon.runner.machine.node import NodeLifecycle
from dora_daemon.runner.machine.state import RunnerMachine
from dora_daemon.runner.nodes.local_nodes import LocalNode
from dora_daemon.runner.service import Runner


def require_success(node: NodeLifecycle) -> None:
    """Raise RequestRefused if the node's process has failed."""
    result = node.result
    if result is not None and result.outcome != "success":
        cause = f": {result.stderr_tail[-1]}" if result.stderr_tail else ""
        raise RequestRefused(f'node "{node.id}" {result.message}{cause}')


def require_running(state: RunnerMachine) -> None:
    """Raise PartEnds if the dataflow is being stopped or has ended."""
    if state.phase == "stopping":
        raise PartEnds("the dataflow is stopping")
    if state.phase == "finished":
        raise PartEnds(DATAFLOW_ENDED)


class NodeLookup:
    """Finds nodes, and waits for their states. Methods raise RequestRefused for unknown nodes."""

    def __init__(self, runner: Runner) -> None:
        self._dispatcher = runner.dispatcher
        self._nodes = runner.services.nodes

    def lifecycle(self, node: str) -> NodeLifecycle:
        """Return the state machine of a node."""
        found = self._dispatcher.state.node(node)
        if found is None:
            known = ", ".join(sorted(self._nodes)) or "none"
            raise RequestRefused(
                f'node "{node}" does not exist in this part of the dataflow (its nodes: {known})'
            )
        return found

    def local(self, node: str) -> LocalNode:
        """Return the runner's state of a node."""
        return self._nodes[self.lifecycle(node).id]

    async def until(self, node: str, condition: Callable[[NodeLifecycle], bool]) -> None:
        """Wait until a node fulfils a condition."""
        await self._dispatcher.until(lambda: condition(self.lifecycle(node)))
