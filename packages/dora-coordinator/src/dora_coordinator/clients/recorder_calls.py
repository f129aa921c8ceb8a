"""Requests of clients about recordings: forwarded to daemons, replies collected; pure."""

from __future__ import annotations

from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.recordings.fleet import (
    SINCE,
    CallRecorders,
    MachineReply,
    RecorderAnswered,
    RecorderCall,
    RecorderReplies,
    RecorderReply,
)
from dora_coordinator.clients.pending_calls import PendingCall, PendingCalls
from dora_coordinator.state.commands import AnswerClient, Command, SendToDaemon
from dora_coordinator.state.events import ClientRequested
from dora_coordinator.state.membership import Membership


class RecorderCalls:
    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._calls = PendingCalls[CallRecorders, RecorderReply](_answer)

    def open(self, requested: ClientRequested, call: CallRecorders) -> list[Command]:
        message = RecorderCall(call=requested.fresh_id, request=call.request)
        connected = {member.key: member for member in self._membership.connected()}
        problems: dict[str, str] = {}
        called = []
        for daemon in call.daemons or connected:
            member = connected.get(daemon)
            if member is None:
                problems[daemon] = f'no connection to daemon "{daemon}"'
            elif member.register.party.protocol.minor < SINCE.minor:
                problems[daemon] = f'daemon "{daemon}" is too old to record; upgrade it'
            else:
                called.append(daemon)
        sent: list[Command] = [SendToDaemon(daemon, message) for daemon in called]
        return [*sent, *self._calls.open(requested, call, called, problems)]

    def answered(self, daemon: str, message: RecorderAnswered) -> list[Command]:
        call = self._calls.find(message.call, daemon)
        if call is None:
            return []
        if message.reply is not None:
            return self._calls.replied(call, daemon, message.reply)
        reason = clean_lines(message.problem or "no reply")
        return self._calls.failed(call, daemon, f'daemon "{daemon}": {reason}')

    def daemon_lost(self, daemon: str) -> list[Command]:
        return self._calls.daemon_lost(daemon)

    def drop(self, client: int, number: int | None) -> None:
        """Forget one call of a client (None: all of them)."""
        self._calls.drop(client, number)


def _answer(call: PendingCall[CallRecorders, RecorderReply]) -> Command:
    replies = tuple(
        MachineReply(daemon=daemon, reply=reply) for daemon, reply in call.replies.items()
    )
    answer = RecorderReplies(replies=replies, problems=call.problems)
    return AnswerClient(call.requested.client, call.requested.number, answer)
