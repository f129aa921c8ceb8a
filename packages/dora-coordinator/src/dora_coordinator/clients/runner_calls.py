"""Requests of clients that runners answer: forwarded to daemons, replies collected; pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from dora_config.protocol.calls import (
    NodeRequest,
    PartReply,
    RunnerAnswered,
    RunnerCall,
    RunnerReplies,
)
from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.runner import DeleteParam, Refusal, SetParam
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.events import ParamChanged
from dora_coordinator.dataflow.registry import DataflowRegistry, RequestRefused
from dora_coordinator.state.commands import AnswerClient, Command, FailClient, SendToDaemon
from dora_coordinator.state.events import ClientRequested
from dora_coordinator.state.membership import Membership


@dataclass(slots=True)
class _Call:
    requested: ClientRequested
    dataflow_id: str
    request: NodeRequest
    waiting: set[str] = field(default_factory=set)
    """Daemons that have not answered."""
    replies: list[PartReply] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class RunnerCalls:
    def __init__(self, registry: DataflowRegistry, membership: Membership) -> None:
        self._registry = registry
        self._membership = membership
        self._calls: dict[str, _Call] = {}

    def open(
        self, requested: ClientRequested, request: NodeRequest, dataflow: Dataflow, node: str | None
    ) -> list[Command]:
        """Call the runner of ``node`` (None: of every part); raises :class:`RequestRefused`."""
        daemons = _daemons_of(dataflow, node)
        message = RunnerCall(call=requested.fresh_id, dataflow_id=dataflow.id, request=request)
        call = self._calls[requested.fresh_id] = _Call(requested, dataflow.id, request)
        commands: list[Command] = []
        for daemon in daemons:
            if self._membership.is_connected(daemon):
                call.waiting.add(daemon)
                commands.append(SendToDaemon(daemon, message))
            else:
                call.problems.append(f'no connection to daemon "{daemon}"')
        return [*commands, *self._answer_if_done(call)]

    def answered(self, daemon: str, message: RunnerAnswered, now: float) -> list[Command]:
        call = self._calls.get(message.call)
        if call is None or daemon not in call.waiting:
            return []
        call.waiting.discard(daemon)
        match message.reply:
            case None:
                reason = clean_lines(message.problem or "no reply")
                call.problems.append(f'daemon "{daemon}": {reason}')
            case Refusal(message=reason):
                call.problems.append(clean_lines(reason))
            case reply:
                call.replies.append(PartReply(daemon=daemon, reply=reply))
        commands: list[Command] = []
        dataflow = self._registry.get(call.dataflow_id)
        if (
            dataflow is not None
            and call.replies
            and isinstance(call.request, SetParam | DeleteParam)
        ):
            commands = self._registry.apply(dataflow, ParamChanged(call.request), now)
        return [*commands, *self._answer_if_done(call)]

    def daemon_lost(self, daemon: str) -> list[Command]:
        commands: list[Command] = []
        for call in list(self._calls.values()):
            if daemon in call.waiting:
                call.waiting.discard(daemon)
                call.problems.append(f'the connection to daemon "{daemon}" was lost')
                commands += self._answer_if_done(call)
        return commands

    def drop(self, client: int, number: int | None) -> None:
        """Forget one call of a client (None: all of them)."""
        for call_id, call in list(self._calls.items()):
            if call.requested.client == client and number in (None, call.requested.number):
                del self._calls[call_id]

    def _answer_if_done(self, call: _Call) -> list[Command]:
        if call.waiting:
            return []
        requested = call.requested
        del self._calls[requested.fresh_id]
        if call.problems and not call.replies:
            return [FailClient(requested.client, requested.number, "\n".join(call.problems))]
        answer = RunnerReplies(replies=tuple(call.replies), problems=tuple(call.problems))
        return [AnswerClient(requested.client, requested.number, answer)]


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
