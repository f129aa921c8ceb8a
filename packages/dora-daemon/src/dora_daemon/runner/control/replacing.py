"""Replaces a node's program in a running dataflow: the new process starts before the old stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from dora_config.dataflow.resolved import ResolvedNode
from dora_daemon.runner.errors import RequestRefused
from dora_daemon.runner.logs.logs import NodeLog
from dora_daemon.runner.machine.events import Exit, NodeReplaced
from dora_daemon.runner.machine.node import NodeLife, NodeState
from dora_daemon.runner.process.prepare import PreparedNode

if TYPE_CHECKING:
    from dora_config.protocol.runner import ReplaceNode
    from dora_daemon.runner.service import Runner

CONNECT_SECONDS = 60.0


class Replacing:
    """Holds the new process until the old one has gone."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._waiting: dict[int, tuple[PreparedNode, NodeLog]] = {}

    async def replace(self, request: ReplaceNode) -> None:
        """Raises RequestRefused, and PreparationError; the old process goes on then."""
        runner = self._runner
        spec = self._accepted(request.node)
        life = runner.state.nodes[spec.id]
        prepared = await anyio.to_thread.run_sync(runner.preparer.prepare, spec, request.place)
        self._accepted(spec)
        number = runner.state.reserve_incarnation()
        log = runner.new_log(prepared)
        runner.desk.staged[number] = None
        self._waiting[number] = (prepared, log)
        try:
            try:
                runner.processes.stage(spec.id, number, prepared, log)
            except (OSError, ValueError) as error:
                raise RequestRefused(f'node "{spec.id}" cannot be spawned: {error}') from error
            await self._until_connected(spec.id, number, log)
            if life.state is not NodeState.RUNNING:
                raise RequestRefused(f'node "{spec.id}" has ended meanwhile')
            runner.tell(NodeReplaced(spec, number, request.grace))
            await self._until_taken_over(life, number)
        finally:
            if self._waiting.pop(number, None) is not None:
                runner.desk.staged.pop(number, None)
                runner.processes.drop_staged(spec.id)
        if life.incarnation != number:
            raise RequestRefused(f'node "{spec.id}" was stopped before it was replaced')

    def _accepted(self, spec: ResolvedNode) -> ResolvedNode:
        """The new node, if it may take the place of the one that runs."""
        runner = self._runner
        old = runner.specs.get(spec.id)
        if old is None:
            raise RequestRefused(f'there is no node "{spec.id}" in this part of the dataflow')
        if old.is_dynamic or spec.is_dynamic:
            raise RequestRefused(f'node "{spec.id}" is dynamic; those are not replaced')
        if spec.id in runner.processes.staged:
            raise RequestRefused(f'node "{spec.id}" is being replaced already')
        if runner.state.nodes[spec.id].state is not NodeState.RUNNING:
            state = runner.state.nodes[spec.id].state.value
            raise RequestRefused(f'node "{spec.id}" does not run (it is {state})')
        for kind, have, want in (
            ("inputs", set(old.inputs), set(spec.inputs)),
            ("outputs", set(old.outputs), set(spec.outputs)),
        ):
            if have != want:
                raise RequestRefused(
                    f'the new node "{spec.id}" must have the same {kind} as the old one:'
                    f" {_listed(have)}; it has {_listed(want)}"
                )
        return spec.model_copy(update={"inputs": old.inputs})

    async def _until_taken_over(self, life: NodeLife, number: int) -> None:
        while number in self._waiting and life.state is NodeState.STOPPING:
            await self._runner.changed()

    async def _until_connected(self, node: str, number: int, log: NodeLog) -> None:
        runner = self._runner
        with anyio.move_on_after(CONNECT_SECONDS):
            while runner.desk.staged[number] is None:
                if node not in runner.processes.staged:
                    said = f": {log.tail[-1]}" if log.tail else ""
                    raise RequestRefused(
                        f'the new process of node "{node}" exited before connecting{said}'
                    )
                await runner.changed()
            return
        raise RequestRefused(
            f'the new process of node "{node}" did not connect within {CONNECT_SECONDS:g} s'
        )

    def take_over(self, node: str, number: int) -> None:
        """The old process has ended: the new one is the node now."""
        runner = self._runner
        prepared, log = self._waiting.pop(number)
        runner.logs[node].close()
        runner.specs[node] = prepared.spec
        runner.prepared[node] = prepared
        runner.logs[node] = log
        if runner.processes.promote(node) is None:
            # It died while it waited.
            runner.desk.staged.pop(number, None)
            runner.exited(node, number, Exit(code=1))
        else:
            runner.desk.take_over(number)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
