"""Requests of clients about recordings: forwarded to daemons, replies collected; pure."""

from __future__ import annotations

from typing import Final

from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.recordings.fleet import (
    CallRecorders,
    MachineReply,
    RecorderAnswered,
    RecorderCall,
    RecorderReplies,
    RecorderReply,
)
from dora_coordinator.clients.pending_calls import CallLimit, PendingCall, PendingCalls
from dora_coordinator.state.commands import AnswerClient, Command
from dora_coordinator.state.events import ClientRequested

ANSWER_SECONDS: Final = 150.0
"""More than twice the 60 s of a recorder's start, which may wait for an earlier one."""


class RecorderCalls(PendingCalls[CallRecorders, RecorderReply]):
    LIMIT = CallLimit("recorder", ANSWER_SECONDS)

    def open(self, requested: ClientRequested, request: CallRecorders, now: float) -> list[Command]:
        call = PendingCall[CallRecorders, RecorderReply](requested, request)
        called = request.daemons or [member.key for member in self._membership.connected()]
        message = RecorderCall(call=call.id, request=request.request)
        return self._send(call, message, called, now)

    def answered(self, daemon: str, message: RecorderAnswered, now: float) -> list[Command]:
        call = self._waiting_for(daemon, message.call)
        if call is None:
            return []
        if message.reply is not None:
            return self._replied(call, daemon, message.reply, now)
        reason = clean_lines(message.problem or "no reply")
        return self._failed(call, daemon, f'daemon "{daemon}": {reason}', now)

    def _close(self, call: PendingCall[CallRecorders, RecorderReply], now: float) -> list[Command]:
        replies = tuple(
            MachineReply(daemon=daemon, reply=reply) for daemon, reply in call.replies.items()
        )
        answer = RecorderReplies(replies=replies, problems=call.problems)
        return [AnswerClient(call.requested.client, call.requested.number, answer)]
