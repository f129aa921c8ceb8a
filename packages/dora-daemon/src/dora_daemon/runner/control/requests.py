"""Dispatches the requests of the control socket to the parts of the runner."""

from __future__ import annotations

import os
from collections.abc import Callable

from dora_config.protocol import runner as protocol
from dora_config.protocol.graph_checks import InvalidChange
from dora_config.protocol.run_plan import RunPlan
from dora_daemon._version import __version__
from dora_daemon.runner.control.messaging import NodeMessaging
from dora_daemon.runner.control.node_changes import NodeChanges
from dora_daemon.runner.control.node_lookup import require_running
from dora_daemon.runner.control.replacer import NodeReplacer
from dora_daemon.runner.control.status import StatusReporter
from dora_daemon.runner.errors import PreparationError, QueueUnavailable, RequestRefused
from dora_daemon.runner.machine.events import BarrierReleased, StopRequested
from dora_daemon.runner.service import Runner


class ControlRequests:
    """Answers what concerns the dataflow; requests about the process are answered before."""

    def __init__(self, runner: Runner, lines_shed: Callable[[], int]) -> None:
        """``lines_shed``: log lines that were dropped because a follower was too slow."""
        dispatcher, link = runner.dispatcher, runner.link
        self._plan = runner.plan
        self._dispatcher = dispatcher
        self._link = link
        self._status = StatusReporter(runner, lines_shed)
        self._changes = NodeChanges(runner)
        self._messaging = NodeMessaging(dispatcher.state, runner.services)
        self._replacer = NodeReplacer(dispatcher, runner.services, runner.preparer)

    async def answer(self, request: protocol.RunnerRequest) -> protocol.RunnerReply:
        """Return the reply, which is a Refusal if the request fails."""
        try:
            return await self._answer(request) or protocol.Done()
        except (RequestRefused, InvalidChange, PreparationError, QueueUnavailable) as error:
            return protocol.Refusal(message=str(error))
        except OSError as error:  # such as no free descriptor
            return protocol.Refusal(message=f"the request failed: {error}")

    async def _answer(self, request: protocol.RunnerRequest) -> protocol.RunnerReply | None:
        match request:
            case protocol.Handshake():
                return check_handshake(request, self._plan)
            case protocol.GetStatus():
                return self._status.status()
            case protocol.GetStatistics():
                return self._status.statistics()
            case protocol.GetHistory():
                return self._status.history()
            case protocol.Release():
                self._dispatcher.emit(BarrierReleased())
            case protocol.SetLinkPeers():
                self._set_peers(request)
            case protocol.SetLinks():
                require_running(self._dispatcher.state)
                self._link.set_plan(request.links, request.credentials)
                self._link.get().apply()
            case protocol.StopAllNodes():
                stop = StopRequested(request.reason, request.grace, request.force)
                self._dispatcher.emit(stop)
            case protocol.StopNode():
                await self._changes.stop(request.node, request.grace)
            case protocol.RestartNode():
                await self._changes.restart(request)
            case protocol.AddNode():
                await self._changes.add(request)
            case protocol.RemoveNode():
                await self._changes.remove(request.node, request.grace)
            case protocol.ReplaceNode():
                await self._replacer.replace(request)
            case protocol.ConnectInput():
                self._changes.connect(request)
            case protocol.DisconnectInput():
                self._changes.disconnect(request)
            case protocol.GetNodes():
                return self._changes.nodes()
            case _:
                return self._message_node(request)
        return None

    def _message_node(self, request: protocol.RunnerRequest) -> protocol.RunnerReply | None:
        match request:
            case protocol.SetParam():
                self._messaging.set_param(request)
            case protocol.DeleteParam():
                self._messaging.delete_param(request)
            case protocol.GetParams():
                return self._messaging.params(request)
            case protocol.Publish():
                self._messaging.publish(request)
            case protocol.Reload():
                self._messaging.reload(request)
            case _:
                raise RequestRefused(f'request "{request.kind}" is not supported')
        return None

    def _set_peers(self, request: protocol.SetLinkPeers) -> None:
        supervisor = self._link.supervisor
        if supervisor is None:
            raise RequestRefused(
                "this part of the dataflow has no link: no edge leaves or enters it"
            )
        supervisor.set_peers(request.peers, request.ended)


def check_handshake(
    request: protocol.Handshake, plan: RunPlan
) -> protocol.HandshakeReply | protocol.Refusal:
    """Return the reply to a daemon, by the version of its protocol."""
    theirs, ours = request.protocol, protocol.RUNNER_PROTOCOL
    if theirs[0] != ours[0] or abs(theirs[1] - ours[1]) > 1:
        return protocol.Refusal(
            message=f"its nodes are run by dora {__version__} (runner protocol"
            f" {ours[0]}.{ours[1]}), which dora {request.release} ({theirs[0]}.{theirs[1]})"
            " cannot control"
        )
    return protocol.HandshakeReply(
        version=__version__, dataflow_id=plan.dataflow_id, name=plan.name, pid=os.getpid()
    )
