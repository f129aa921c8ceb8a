"""Requests about recordings, forwarded to daemons."""

from __future__ import annotations

from typing import Final

from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.recordings import (
    CallRecorders,
    MachineReply,
    RecorderAnswered,
    RecorderCall,
    RecorderReplies,
)
from dora_coordinator.queries.cluster import QueryContext

RECORDER_SECONDS: Final = 150.0
"""More than twice the 60 s of a recorder's start, which may wait for an earlier one."""


async def call_recorders(query: CallRecorders, present: QueryContext) -> RecorderReplies:
    """Call the daemons that the request names, or all that are connected."""
    connected = [member.key for member in present.membership.connected()]
    answers = await present.calls.gather(
        query.daemons or connected,
        lambda call: RecorderCall(call=call, request=query.request),
        RecorderAnswered,
        seconds=RECORDER_SECONDS,
    )
    replies = []
    for daemon, answer in answers.found.items():
        if answer.reply is not None:
            replies.append(MachineReply(daemon=daemon, reply=answer.reply))
        else:
            reason = clean_lines(answer.problem or "no reply")
            answers.problems[daemon] = f'daemon "{daemon}": {reason}'
    return RecorderReplies(replies=tuple(replies), problems=answers.problems)
