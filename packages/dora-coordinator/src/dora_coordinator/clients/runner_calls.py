"""Requests of clients that runners answer: forwarded to daemons, replies collected; pure."""

from __future__ import annotations

from dataclasses import dataclass

from dora_config.protocol.calls import (
    NodeRequest,
    PartReply,
    RunnerAnswered,
    RunnerCall,
    RunnerReplies,
)
from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.runner import DeleteParam, Refusal, RunnerReply, SetParam
from dora_coordinator.clients.pending_calls import PendingCall, PendingCalls
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.events import ParamChanged
from dora_coordinator.dataflow.registry import DataflowRegistry, RequestRefused
from dora_coordinator.state.commands import AnswerClient, Command, FailClient
from dora_coordinator.state.events import ClientRequested
from dora_coordinator.state.membership import Membership


@dataclass(frozen=True, slots=True)
class _Context:
    dataflow_id: str
    request: NodeRequest


class RunnerCalls(PendingCalls[_Context, RunnerReply]):
    def __init__(self, registry: DataflowRegistry, membership: Membership) -> None:
        super().__init__(membership)
        self._registry = registry

    def open(
        self,
        requested: ClientRequested,
        request: NodeRequest,
        dataflow: Dataflow,
        node: str | None,
        now: float,
    ) -> list[Command]:
        """Call the runner of ``node`` (None: of every part); raises :class:`RequestRefused`."""
        daemons = _daemons_of(dataflow, node)
        call = PendingCall[_Context, RunnerReply](requested, _Context(dataflow.id, request))
        message = RunnerCall(call=call.id, dataflow_id=dataflow.id, request=request)
        return self._send(call, message, daemons, now)

    def answered(self, daemon: str, message: RunnerAnswered, now: float) -> list[Command]:
        call = self._waiting_for(daemon, message.call)
        if call is None:
            return []
        match message.reply:
            case None:
                reason = clean_lines(message.problem or "no reply")
                return self._failed(call, daemon, f'daemon "{daemon}": {reason}', now)
            case Refusal(message=reason):
                return self._failed(call, daemon, clean_lines(reason), now)
            case reply:
                changed = self._note_change(call.context, now)
                return [*changed, *self._replied(call, daemon, reply, now)]

    def _note_change(self, context: _Context, now: float) -> list[Command]:
        """Store a parameter that a runner has changed."""
        dataflow = self._registry.get(context.dataflow_id)
        if dataflow is None or not isinstance(context.request, SetParam | DeleteParam):
            return []
        return self._registry.apply(dataflow, ParamChanged(context.request), now)

    def _close(self, call: PendingCall[_Context, RunnerReply], now: float) -> list[Command]:
        client, number = call.requested.client, call.requested.number
        problems = tuple(call.problems.values())
        if problems and not call.replies:
            return [FailClient(client, number, "\n".join(problems))]
        replies = tuple(
            PartReply(daemon=daemon, reply=reply) for daemon, reply in call.replies.items()
        )
        return [AnswerClient(client, number, RunnerReplies(replies=replies, problems=problems))]


def _daemons_of(dataflow: Dataflow, node: str | None) -> list[str]:
    if node is None:
        return [part.daemon for part in dataflow.parts.left()]
    by_node = dataflow.parts.by_node()
    daemon = by_node.get(node)
    if daemon is None:
        raise RequestRefused(
            "not_found",
            f'dataflow {dataflow.label} has no node "{node}"; its nodes are: '
            f"{', '.join(sorted(by_node))}",
        )
    if dataflow.parts[daemon].ended:
        raise RequestRefused("not_found", f'node "{node}" of {dataflow.label} has ended')
    return [daemon]
