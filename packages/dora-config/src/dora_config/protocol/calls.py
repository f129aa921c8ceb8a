"""Requests to the runner of a dataflow, passed on from CLI to coordinator to daemon; does no I/O.

One mechanism for all that concerns running nodes: the coordinator finds the daemon, the daemon asks
its runner, the reply goes back the same way.
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
"""What may be passed on: nothing that would change what the coordinator knows of a dataflow."""


class RunnerCall(Message):
    """Coordinator to daemon: ask the runner of that part; answered with RunnerAnswered."""

    kind: Literal["runner_call"] = "runner_call"
    call: str
    dataflow_id: DataflowUuid
    request: NodeRequest


class RunnerAnswered(Message):
    kind: Literal["runner_answered"] = "runner_answered"
    call: str
    reply: RunnerReply | None = None
    problem: str | None = None
    """Why there is no reply; a full sentence."""


class PartReply(Message):
    """What the runner of one part answered."""

    daemon: str
    reply: RunnerReply


class RunnerReplies(Message):
    """Answer to a client's CallRunner."""

    kind: Literal["runner_replies"] = "runner_replies"
    replies: tuple[PartReply, ...] = ()
    problems: tuple[str, ...] = ()
    """Daemons that were to answer and could not, and why."""
