"""Requests about recordings, forwarded to daemons."""

from __future__ import annotations

from typing import Final, get_args

from dora_config.protocol.recordings import (
    CallRecorders,
    MachineReply,
    RecorderReplies,
    RecorderReply,
)
from dora_coordinator.queries.cluster import QueryContext

_REPLIES: Final[type[RecorderReply]] = get_args(RecorderReply)[0]
RECORDER_SECONDS: Final = 150.0
"""More than twice the 60 s of a recorder's start, which may wait for an earlier one."""


async def call_recorders(query: CallRecorders, present: QueryContext) -> RecorderReplies:
    """Call the daemons that the request names, or all that are connected."""
    connected = [member.key for member in present.membership.connected()]
    answers = await present.calls.gather(
        query.daemons or connected, query.request, _REPLIES, seconds=RECORDER_SECONDS
    )
    replies = (MachineReply(daemon=one, reply=reply) for one, reply in answers.found.items())
    return RecorderReplies(replies=tuple(replies), problems=answers.problems)
