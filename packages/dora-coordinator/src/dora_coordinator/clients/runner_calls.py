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
from dora_coordinator.state.commands import AnswerClient, Command, FailClient, SendToDaemon
from dora_coordinator.state.events import ClientRequested
from dora_coordinator.state.membership import Membership


@dataclass(frozen=True, slots=True)
class _Question:
    dataflow_id: str
    request: NodeRequest


class RunnerCalls:
    def __init__(self, registry: DataflowRegistry, membership: Membership) -> None:
        self._registry = registry
        self._membership = membership
        self._calls = PendingCalls[_Question, RunnerReply](_answer)

    def open(
        self, requested: ClientRequested, request: NodeRequest, dataflow: Dataflow, node: str | None
    ) -> list[Command]:
        """Call the runner of ``node`` (None: of every part); raises :class:`RequestRefused`."""
        message = RunnerCall(call=requested.fresh_id, dataflow_id=dataflow.id, request=request)
        called: list[str] = []
        problems: dict[str, str] = {}
        for daemon in _daemons_of(dataflow, node):
            if self._membership.is_connected(daemon):
                called.append(daemon)
            else:
                problems[daemon] = f'no connection to daemon "{daemon}"'
        sent: list[Command] = [SendToDaemon(daemon, message) for daemon in called]
        question = _Question(dataflow.id, request)
        return [*sent, *self._calls.open(requested, question, called, problems)]

    def answered(self, daemon: str, message: RunnerAnswered, now: float) -> list[Command]:
        call = self._calls.find(message.call, daemon)
        if call is None:
            return []
        match message.reply:
            case None:
                reason = clean_lines(message.problem or "no reply")
                return self._calls.failed(call, daemon, f'daemon "{daemon}": {reason}')
            case Refusal(message=reason):
                return self._calls.failed(call, daemon, clean_lines(reason))
            case reply:
                changed = self._note_change(call.question, now)
                return [*changed, *self._calls.replied(call, daemon, reply)]

    def _note_change(self, question: _Question, now: float) -> list[Command]:
        """Store a parameter that a runner has changed."""
        dataflow = self._registry.get(question.dataflow_id)
        if dataflow is None or not isinstance(question.request, SetParam | DeleteParam):
            return []
        return self._registry.apply(dataflow, ParamChanged(question.request), now)

    def daemon_lost(self, daemon: str) -> list[Command]:
        return self._calls.daemon_lost(daemon)

    def drop(self, client: int, number: int | None) -> None:
        """Forget one call of a client (None: all of them)."""
        self._calls.drop(client, number)


def _answer(call: PendingCall[_Question, RunnerReply]) -> Command:
    client, number = call.requested.client, call.requested.number
    problems = tuple(call.problems.values())
    if problems and not call.replies:
        return FailClient(client, number, "\n".join(problems))
    replies = tuple(PartReply(daemon=daemon, reply=reply) for daemon, reply in call.replies.items())
    return AnswerClient(client, number, RunnerReplies(replies=replies, problems=problems))


def _daemons_of(dataflow: Dataflow, node: str | None) -> list[str]:
    if node is None:
        return [part.daemon for part in dataflow.parts.left()]
    by_node = {name: part for part in dataflow.parts.values() for name in part.nodes}
    part = by_node.get(node)
    if part is None:
        raise RequestRefused(
            "not_found",
            f'dataflow {dataflow.label} has no node "{node}"; its nodes are: '
            f"{', '.join(sorted(by_node))}",
        )
    if part.ended:
        raise RequestRefused("not_found", f'node "{node}" of {dataflow.label} has ended')
    return [part.daemon]
