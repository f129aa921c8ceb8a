"""Reload on save for `dora run`: the runner is part of this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dora_cli.live.watching import GRACE, NodeWatcher
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol.run_plan import NodeLocation, RunPlan
from dora_config.protocol.runner import Refusal, Reload, ReplaceNode
from dora_daemon.runner.control_requests import ControlRequests
from dora_daemon.runner.service import Runner


async def watch(runner: Runner, path: Path, plan: RunPlan) -> None:
    """Replace nodes of a runner when their files change, until cancelled.

    ``path``: absolute path of the dataflow file.
    """
    requests = ControlRequests(runner, lambda: 0)
    base = Path(plan.working_dir)
    nodes = {
        node.id: (node, base / (plan.places.get(node.id, NodeLocation()).working_dir or ""))
        for node in plan.resolved.nodes
        if not node.is_dynamic
    }

    async def reload(name: str) -> str | None:
        reply = await requests.answer(_request(name, nodes, plan))
        return reply.message if isinstance(reply, Refusal) else None

    await NodeWatcher(path, nodes, reload).run()


def _request(
    name: str, nodes: Mapping[str, tuple[ResolvedNode, Path]], plan: RunPlan
) -> ReplaceNode | Reload:
    node = nodes[name][0]
    if node.kind == "runtime":
        return Reload(node=name)
    return ReplaceNode(node=node, place=plan.places.get(name, NodeLocation()), grace=GRACE)
