"""Requests of clients that runners answer: passed on to daemons, replies collected; pure."""

from __future__ import annotations

from collections.abc import Callable
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
from dora_coordinator.dataflow.registry import RequestRefused
from dora_coordinator.state.commands import AnswerClient, Command, FailClient, SendToDaemon
from dora_coordinator.state.events import ClientRequested
from dora_coordinator.state.membership import Membership


@dataclass(slots=True)
class _Question:
    asked: ClientRequested
    dataflow: Dataflow
    request: NodeRequest
    waiting: set[str] = field(default_factory=set)
    """Daemons whose answer is under way."""
    replies: list[PartReply] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class RunnerCalls:
    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._questions: dict[str, _Question] = {}

    def ask(
        self, asked: ClientRequested, request: NodeRequest, dataflow: Dataflow, node: str | None
    ) -> list[Command]:
        """Ask the part that has ``node`` (None: every part); raises :class:`RequestRefused`."""
        daemons = _daemons_of(dataflow, node)
        call = RunnerCall(call=asked.fresh_id, dataflow_id=dataflow.id, request=request)
        question = self._questions[call.call] = _Question(asked, dataflow, request)
        commands: list[Command] = []
        for daemon in daemons:
            if self._membership.is_connected(daemon):
                question.waiting.add(daemon)
                commands.append(SendToDaemon(daemon, call))
            else:
                question.problems.append(f'no connection to daemon "{daemon}"')
        return [*commands, *self._answer_if_done(question)]

    def answered(self, daemon: str, message: RunnerAnswered) -> list[Command]:
        question = self._questions.get(message.call)
        if question is None or daemon not in question.waiting:
            return []
        question.waiting.discard(daemon)
        match message.reply:
            case None:
                why = clean_lines(message.problem or "no reply")
                question.problems.append(f'daemon "{daemon}": {why}')
            case Refusal(message=why):
                question.problems.append(clean_lines(why))
            case reply:
                question.replies.append(PartReply(daemon=daemon, reply=reply))
        return [*_remember(question), *self._answer_if_done(question)]

    def daemon_lost(self, daemon: str) -> list[Command]:
        commands: list[Command] = []
        for question in list(self._questions.values()):
            if daemon in question.waiting:
                question.waiting.discard(daemon)
                question.problems.append(f'the connection to daemon "{daemon}" was lost')
                commands += self._answer_if_done(question)
        return commands

    def cancel(self, client: int, number: int) -> None:
        self._drop(lambda asked: (asked.client, asked.number) == (client, number))

    def client_gone(self, client: int) -> None:
        self._drop(lambda asked: asked.client == client)

    def _drop(self, unwanted: Callable[[ClientRequested], bool]) -> None:
        for call, question in list(self._questions.items()):
            if unwanted(question.asked):
                del self._questions[call]

    def _answer_if_done(self, question: _Question) -> list[Command]:
        if question.waiting:
            return []
        asked = question.asked
        del self._questions[asked.fresh_id]
        if question.problems and not question.replies:
            return [FailClient(asked.client, asked.number, "\n".join(question.problems))]
        answer = RunnerReplies(replies=tuple(question.replies), problems=tuple(question.problems))
        return [AnswerClient(asked.client, asked.number, answer)]


def _remember(question: _Question) -> list[Command]:
    """What must not be lost with the runner that has done it."""
    request = question.request
    if question.replies and isinstance(request, SetParam | DeleteParam):
        return question.dataflow.param_changed(request)
    return []


def _daemons_of(dataflow: Dataflow, node: str | None) -> list[str]:
    living = [part for part in dataflow.parts.values() if not part.ended]
    if node is None:
        return [part.daemon for part in living]
    known = {name: part for part in dataflow.parts.values() for name in part.nodes}
    part = known.get(node)
    if part is None:
        raise RequestRefused(
            "not_found",
            f'dataflow {dataflow.label} has no node "{node}"; its nodes are: '
            f"{', '.join(sorted(known))}",
        )
    if part.ended:
        raise RequestRefused("not_found", f'node "{node}" of {dataflow.label} has ended')
    return [part.daemon]
