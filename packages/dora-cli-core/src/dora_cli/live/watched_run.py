"""Reload on save for `dora run`: the runner is part of this process."""

from __future__ import annotations

from pathlib import Path

from dora_cli import output
from dora_cli.live.holds import waiting_text
from dora_cli.live.watching import GRACE, NodeWatcher
from dora_config.dataflow.resolved import NodeLocation
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner import Refusal, ReloadCode, ReplaceNode
from dora_daemon.runner.control.requests import ControlRequests
from dora_daemon.runner.service import Runner


def make_watcher(path: Path, plan: RunPlan) -> NodeWatcher:
    """Return a watcher for a plan that will run; it reads the files now.

    ``path``: absolute path of the dataflow file.
    """
    base = Path(plan.working_dir)
    nodes = {
        node.id: (node, base / (plan.places.get(node.id, NodeLocation()).working_dir or ""))
        for node in plan.resolved.nodes
        if not node.is_dynamic
    }
    return NodeWatcher(path, nodes)


async def watch(runner: Runner, watcher: NodeWatcher, plan: RunPlan) -> None:
    """Replace nodes of a runner when their files change, until cancelled."""
    requests = ControlRequests(runner)

    async def reload(name: str) -> str | None:
        node = runner.services.nodes.get(name)
        if node is not None and node.held is not None:
            output.remark(waiting_text(name, node.held))
        reply = await requests.answer(_request(name, plan))
        return reply.message if isinstance(reply, Refusal) else None

    await watcher.run(reload)


def _request(name: str, plan: RunPlan) -> ReplaceNode | ReloadCode:
    node = next(node for node in plan.resolved.nodes if node.id == name)
    if node.kind == "runtime":
        return ReloadCode(node=name)
    return ReplaceNode(node=node, place=plan.places.get(name, NodeLocation()), grace=GRACE)
