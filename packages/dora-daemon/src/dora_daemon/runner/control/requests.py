"""Answers the requests of the control socket: status, statistics, and changes to what runs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from dora_config.dataflow.resolved import ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import OutputSource
from dora_config.protocol import runner as protocol
from dora_daemon._version import __version__
from dora_daemon.runner.control.status import node_status
from dora_daemon.runner.errors import PreparationError, QueueUnavailable, RequestRefused
from dora_daemon.runner.link.streams import RUNNER_NODE
from dora_daemon.runner.machine import events as happened
from dora_daemon.runner.machine.node import NodeState
from dora_daemon.runner.machine.wiring import Edge
from dora_node_api.protocol.messages import INSPECTOR, ParamDeleted, ParamUpdate, Reload, SendOutput

if TYPE_CHECKING:
    from dora_daemon.runner.service import Runner

ALIVE = (NodeState.CONNECTING, NodeState.WAITING, NodeState.RUNNING)
LARGEST_KEY = 256
LARGEST_VALUE = 65_536
START_SECONDS = 60.0
"""How long a request waits for a process to be started."""


class Requests:
    """One method a request; each raises RequestRefused with the sentence that is the answer."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def answer(self, request: protocol.RunnerRequest) -> protocol.RunnerReply:
        """The reply; a request that cannot be done is answered with a Refusal."""
        try:
            return await self._answer(request)
        except (RequestRefused, PreparationError, QueueUnavailable) as error:
            return protocol.Refusal(message=str(error))

    async def _answer(self, request: protocol.RunnerRequest) -> protocol.RunnerReply:
        match request:
            case protocol.Handshake():
                return self._greet(request)
            case protocol.GetStatus():
                return self.status()
            case protocol.GetStatistics():
                return self._statistics()
            case protocol.Release():
                self._runner.tell(happened.Released())
            case protocol.SetLinkPeers():
                self._set_peers(request)
            case protocol.SetLinks():
                self._must_run()
                self._runner.links.read(request.links, request.credentials)
                self._runner.links.apply()
            case protocol.StopAllNodes():
                self._runner.tell(
                    happened.StopRequested(request.reason, request.grace, request.force)
                )
            case protocol.StopNode():
                await self._stop_node(request.node, request.grace)
            case protocol.RestartNode():
                await self._restart_node(request)
            case protocol.AddNode():
                await self._add_node(request)
            case protocol.RemoveNode():
                await self._remove_node(request.node, request.grace)
            case protocol.ReplaceNode():
                await self._runner.replacing.replace(request)
            case protocol.ConnectInput():
                self._connect(request)
            case protocol.DisconnectInput():
                self._disconnect(request)
            case _:
                return self._about_one_node(request)
        return protocol.Done()

    def _about_one_node(self, request: protocol.RunnerRequest) -> protocol.RunnerReply:
        runner = self._runner
        match request:
            case protocol.SetParam():
                self._set_param(request)
            case protocol.DeleteParam():
                params = runner.desk.params.get(self._known(request.node), {})
                if request.key not in params:
                    raise RequestRefused(
                        f'param not found: node "{request.node}" has no parameter "{request.key}"'
                    )
                del params[request.key]
                runner.desk.send(request.node, ParamDeleted(request.key))
            case protocol.GetParams():
                return protocol.Params(
                    values=dict(runner.desk.params.get(self._known(request.node), {}))
                )
            case protocol.Publish():
                self._publish(request)
            case protocol.Reload():
                spec = runner.specs[self._known(request.node)]
                if request.operator not in {None, *(o.id for o in spec.operators)}:
                    raise RequestRefused(f'node "{spec.id}" has no operator "{request.operator}"')
                if not runner.desk.send(request.node, Reload(request.operator)):
                    raise RequestRefused(f'node "{request.node}" is not connected')
            case _:
                raise RequestRefused(f"a {request.kind} request is not answered here")
        return protocol.Done()

    # -------------------------------------------------------------------------- questions

    def _greet(self, request: protocol.Handshake) -> protocol.HandshakeReply:
        theirs, ours = request.protocol, protocol.RUNNER_PROTOCOL
        if theirs[0] != ours[0] or abs(theirs[1] - ours[1]) > 1:
            raise RequestRefused(
                f"this runner (version {__version__}) speaks protocol {ours[0]}.{ours[1]} and its"
                f" neighbouring minor versions, the daemon speaks {theirs[0]}.{theirs[1]}"
            )
        plan = self._runner.plan
        return protocol.HandshakeReply(
            version=__version__, dataflow_id=plan.dataflow_id, name=plan.name, pid=os.getpid()
        )

    def status(self) -> protocol.RunnerStatus:
        """The dataflow and each of its nodes."""
        runner = self._runner
        pids = {n: r.process.pid for n, r in runner.processes.running.items()}
        loads = runner.metrics.sample(pids, runner.now())
        return protocol.RunnerStatus(
            dataflow_id=runner.plan.dataflow_id,
            version=__version__,
            name=runner.plan.name,
            phase=runner.state.phase,
            nodes=tuple(
                node_status(life, runner.book, runner.inputs, loads.get(node), runner.now())
                for node, life in runner.state.nodes.items()
            ),
            result=runner.result,
            started_at=runner.started_at,
            lines_shed=runner.lines_shed(),
            link=runner.links.report(),
            only_virtual_left=runner.state.only_virtual_left,
        )

    def _statistics(self) -> protocol.Statistics:
        ours = (RUNNER_NODE, INSPECTOR)
        kept = [q for q in self._runner.book.all() if q.edge.target not in ours]
        return protocol.Statistics(edges=tuple(self._runner.links.edge(q) for q in kept))

    def _set_peers(self, request: protocol.SetLinkPeers) -> None:
        if self._runner.links.plan is None:
            raise RequestRefused(
                "no edge leaves or enters this part of the dataflow, so it has no link"
            )
        self._runner.links.set_peers(request.peers, request.ended)

    # ------------------------------------------------------------------- stop and restart

    def _known(self, node: str) -> str:
        if node not in self._runner.state.nodes:
            known = ", ".join(sorted(self._runner.state.nodes)) or "none"
            raise RequestRefused(
                f'there is no node "{node}" in this part of the dataflow (nodes here: {known})'
            )
        return node

    def _must_run(self) -> None:
        if self._runner.state.phase in ("stopping", "finished"):
            raise RequestRefused(f"the dataflow is {self._runner.state.phase}")

    async def _stop_node(self, node: str, grace: float) -> None:
        life = self._runner.state.nodes[self._known(node)]
        self._runner.tell(happened.NodeStopRequested(node, grace))
        # Nobody can end a dynamic node that does not care.
        with anyio.move_on_after(grace if life.dynamic else math.inf):
            await self._until(lambda: life.state in (NodeState.ENDED, NodeState.ABSENT))

    async def _restart_node(self, request: protocol.RestartNode) -> None:
        self._must_run()
        life = self._runner.state.nodes[self._known(request.node)]
        if life.dynamic:
            raise RequestRefused(
                f'node "{life.id}" is dynamic: whoever started its process restarts it'
            )
        before = life.incarnation
        self._runner.tell(happened.NodeRestartRequested(request.node, request.grace))
        with anyio.move_on_after(request.grace * 1.5 + START_SECONDS):
            await self._until(lambda: life.incarnation != before and life.pid is not None)
            return
        raise RequestRefused(f'node "{life.id}" did not come back; see its log')

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._runner.changed()

    # ------------------------------------------------------------------------------ nodes

    async def _add_node(self, request: protocol.AddNode) -> None:
        self._must_run()
        runner = self._runner
        spec = request.node
        if spec.id in runner.state.nodes:
            raise RequestRefused(f'there is a node "{spec.id}" in this dataflow already')
        for name, wanted in spec.inputs.items():
            self._check_source(f"{spec.id}/{name}", wanted, of=spec)
        prepared = await anyio.to_thread.run_sync(runner.preparer.prepare, spec, request.place)
        self._must_run()
        runner.take_in(prepared)
        runner.tell(happened.NodeAdded(spec))
        life = runner.state.nodes[spec.id]
        if not spec.is_dynamic:
            await self._until(lambda: life.pid is not None or life.ended)
        if life.result is not None and life.result.outcome != "success":
            raise RequestRefused(f'node "{spec.id}" {life.result.message}')

    def _check_source(self, place: str, wanted: ResolvedInput, *, of: ResolvedNode) -> None:
        """An input may wait for a node to come, but not for an output that a node lacks."""
        source = wanted.source
        if not isinstance(source, OutputSource):
            return
        spec = of if source.node == of.id else self._runner.specs.get(source.node)
        if spec is not None and source.output not in spec.outputs:
            raise RequestRefused(
                f'output `{source}` mapped to input `{place}` does not exist; "{source.node}" has'
                f" the outputs: {', '.join(spec.outputs) or 'none'}"
            )

    def _check_link(self, place: str, output: OutputSource) -> None:
        """An output of another machine must be among those that are linked."""
        if (output.node, output.output) not in self._runner.links.streams.sources:
            raise RequestRefused(
                f"output `{output}`, mapped to input `{place}`, is on another machine and no link"
                " brings it here: the edge is missing in SetLinks"
            )

    async def _remove_node(self, node: str, grace: float) -> None:
        await self._stop_node(node, grace)
        self._runner.forget(node)

    # ------------------------------------------------------------------------------ edges

    def _connect(self, request: protocol.ConnectInput) -> None:
        self._must_run()
        runner = self._runner
        target = runner.specs[self._known(request.target)]
        output = OutputSource(node=request.source, output=request.output)
        place = f"{target.id}/{request.input}"
        wanted = ResolvedInput(
            source=output,
            queue_size=request.queue_size,
            queue_policy=request.queue_policy,
            input_timeout=request.input_timeout,
        )
        if request.source in runner.desk.remote_nodes:
            self._check_link(place, output)
        else:
            self._check_source(place, wanted, of=runner.specs[self._known(request.source)])
        present = target.inputs.get(request.input)
        edge = Edge(request.source, request.output, target.id, request.input)
        if present is not None and runner.book.get(edge) is not None:
            raise RequestRefused(f"input `{place}` reads `{present.source}` already")
        if present is not None and present.source != wanted.source:
            raise RequestRefused(f"input `{place}` reads `{present.source}`; disconnect that first")
        runner.set_inputs(target.id, {**target.inputs, request.input: wanted})
        runner.tell(happened.EdgeAdded(edge.source, edge.output, edge.target, edge.input))
        if not target.is_dynamic or target.id in runner.desk.connections:
            runner.desk.connect_input(target.id, request.input, wanted)

    def _disconnect(self, request: protocol.DisconnectInput) -> None:
        runner = self._runner
        target = runner.specs[self._known(request.target)]
        present = target.inputs.get(request.input)
        expected = OutputSource(node=request.source, output=request.output)
        if present is None or present.source != expected:
            reads = "nothing" if present is None else f"`{present.source}`"
            raise RequestRefused(
                f"input `{target.id}/{request.input}` does not read `{expected}`, it reads {reads}"
            )
        left = {k: v for k, v in target.inputs.items() if k != request.input}
        runner.set_inputs(target.id, left)
        edge = Edge(request.source, request.output, target.id, request.input)
        runner.desk.disconnect_input(edge)
        runner.tell(happened.EdgeRemoved(edge.source, edge.output, edge.target, edge.input))

    # ----------------------------------------------------------------- params and messages

    def _set_param(self, request: protocol.SetParam) -> None:
        node = self._known(request.node)
        if not 0 < len(request.key.encode()) <= LARGEST_KEY:
            raise RequestRefused(f"a parameter's key has 1 to {LARGEST_KEY} bytes")
        size = len(request.model_dump_json(include={"value"}))
        if size > LARGEST_VALUE:
            raise RequestRefused(
                f'the value of parameter "{request.key}" takes {size} bytes as JSON, at most'
                f" {LARGEST_VALUE} are allowed"
            )
        self._runner.desk.params.setdefault(node, {})[request.key] = request.value
        self._runner.desk.send(node, ParamUpdate(request.key, request.value))

    def _publish(self, request: protocol.Publish) -> None:
        spec = self._runner.specs[self._known(request.node)]
        if request.output not in spec.outputs:
            raise RequestRefused(
                f'node "{spec.id}" has no output "{request.output}"; its outputs are:'
                f" {', '.join(spec.outputs) or 'none'}"
            )
        node, output = spec.id, request.output
        if any(kept.from_runner for kept in self._runner.book.out_of(node, (output,))):
            raise RequestRefused(
                f'the runner itself sends output "{output}" of node "{node}", from printed lines'
            )
        message = SendOutput(output, request.data, request.metadata)
        if not self._runner.desk.send(node, message):
            raise RequestRefused(
                f'node "{node}" is not connected; what is published in its name is sent by it'
            )
