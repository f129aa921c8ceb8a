"""Requests to runners, forwarded from the CLI through coordinator and daemon; no I/O.

The reply takes the same way back.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dora_config.protocol.dataflow import DataflowUuid
from dora_config.protocol.envelope import Message
from dora_config.protocol.runner import (
    DeleteParam,
    GetParams,
    GetStatistics,
    Publish,
    Reload,
    RestartNode,
    RunnerReply,
    SetParam,
    StopNode,
)

NodeRequest = Annotated[
    GetStatistics | StopNode | RestartNode | SetParam | DeleteParam | GetParams | Publish | Reload,
    Field(discriminator="kind"),
]
"""Requests that are forwarded: those that do not change the coordinator's state of a dataflow."""


class RunnerCall(Message):
    """Forward a request to the runner of a part; answered with :class:`RunnerAnswered`."""

    kind: Literal["runner_call"] = "runner_call"
    call: str
    dataflow_id: DataflowUuid
    request: NodeRequest


class RunnerAnswered(Message):
    kind: Literal["runner_answered"] = "runner_answered"
    call: str
    reply: RunnerReply | None = None
    problem: str | None = None
    """Why the call has failed, as a full sentence."""


class PartReply(Message):
    """Reply of the runner of one part."""

    daemon: str
    reply: RunnerReply


class RunnerReplies(Message):
    """Answer to `CallRunner`."""

    kind: Literal["runner_replies"] = "runner_replies"
    replies: tuple[PartReply, ...] = ()
    problems: tuple[str, ...] = ()
    """Daemons without a reply, with the reason."""
