"""Builds on daemons: shares, progress, result.

A build ends with the connection of the client that requested it, is not stored, and its results
stay on the daemons. A daemon that is lost fails its share; the others continue, so that the answer
contains all problems.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import anyio

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol import builds
from dora_config.protocol.envelope import clean_lines
from dora_coordinator.dataflow.placement import place
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.events import NotStarted


async def build(
    request: builds.BuildDataflow, cluster: QueryContext, client: RequestClient
) -> builds.Built:
    """Build each node where a start would place it now; raises :class:`RequestRefused`."""
    spec = request.spec
    attributes = {} if spec.name is None else {"dora.dataflow.name": spec.name}
    one = _Build(request, cluster, client)
    with cluster.span(("build", one.id), {"dora.build.id": one.id, **attributes}):
        try:
            plan = place(spec, cluster.membership.connected())
        except RequestRefused as problem:
            cluster.post(NotStarted(spec.name, "placement", str(problem)))
            raise
        client.notify(builds.BuildTriggered(build_id=one.id))
        await one.run(plan.parts)
        if one.problems:
            problems = "\n".join(one.problems)
            cluster.post(NotStarted(spec.name, "build", problems))
            raise RequestRefused("failed", f"the build failed\n{problems}")
    return builds.Built(build_id=one.id, nodes=tuple(one.nodes))


@dataclass(slots=True)
class _Build:
    request: builds.BuildDataflow
    cluster: QueryContext
    client: RequestClient
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    nodes: list[builds.BuiltNode] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    """Daemons that have not finished their share."""

    async def run(self, placement: dict[str, tuple[str, ...]]) -> None:
        spec, limit = self.request.spec, self.cluster.settings.build_timeout
        nodes = {
            node.id: node
            for node in spec.resolved.nodes
            if node.needs_build or node.id in spec.code
        }
        with anyio.move_on_after(limit):
            async with anyio.create_task_group() as tasks:
                for daemon, here in placement.items():
                    chosen = tuple(nodes[node] for node in here if node in nodes)
                    if chosen:
                        self.waiting.add(daemon)
                        tasks.start_soon(self._share, daemon, chosen)
        self.problems += [
            f'daemon "{daemon}": not finished within {limit:g} s (the coordinator\'s setting '
            "build_timeout); its build was cancelled"
            for daemon in sorted(self.waiting)
        ]

    async def _share(self, daemon: str, nodes: tuple[ResolvedNode, ...]) -> None:
        request, cluster = self.request, self.cluster
        message = builds.BuildPart(
            build_id=self.id,
            spec=request.spec.with_nodes(nodes),
            settings=request.settings,
            replaces=request.replaces,
        )
        key = ("build machine", self.id, daemon)
        with (
            cluster.span(key, {"dora.machine": daemon}, ("build", self.id)) as outcome,
            cluster.calls.stream(daemon, self.id, message) as messages,
        ):
            ended = None
            try:
                async for news in messages:
                    if isinstance(news, builds.BuildEnded):
                        ended = news
                        break
                    assert isinstance(news, builds.BuildEvents)
                    await self._forward(daemon, news)
            finally:
                if ended is None:
                    cluster.calls.send(daemon, builds.CancelBuild(build_id=self.id))
            self.waiting.discard(daemon)
            problems = [f'daemon "{daemon}"{problem}' for problem in _problems(ended)]
            outcome.error = "; ".join(problems) or None
            self.problems += problems
            for node in () if ended is None else ended.nodes:
                self.nodes.append(node.model_copy(update={"daemon": daemon}))

    async def _forward(self, daemon: str, news: builds.BuildEvents) -> None:
        """Send progress; the daemon may send more once the client has it."""
        progress = builds.BuildProgress(
            build_id=self.id, daemon=daemon, events=news.events, dropped=news.dropped
        )
        await self.client.deliver(progress)
        self.cluster.calls.send(daemon, builds.BuildEventsAck(build_id=self.id))


def _problems(ended: builds.BuildEnded | None) -> list[str]:
    """Return why a share failed; ``ended`` None: its connection was lost."""
    if ended is None:
        return [": the connection was lost during the build; build again"]
    found = [f', node "{one.node}": {clean_lines(one.message)}' for one in ended.failures]
    return found if ended.problem is None else [*found, f": {clean_lines(ended.problem)}"]
