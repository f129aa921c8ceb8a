"""Requests to runners that are answered once."""

from __future__ import annotations

from typing import Protocol

import anyio

from dora_config.errors import DoraError
from dora_config.protocol.runner import Refusal, RunnerReply, RunnerRequest
from dora_daemon.agent.runners.pending_requests import OnReply


class NotAnswered(DoraError):
    """A runner refused a request, or did not answer it."""


class RunnerCalls(Protocol):
    """The runners of this machine."""

    def call(self, dataflow_id: str, request: RunnerRequest, on_reply: OnReply) -> None:
        """Send a request and call ``on_reply`` once with its reply."""


async def call(runners: RunnerCalls, dataflow_id: str, request: RunnerRequest) -> RunnerReply:
    """Return the reply of a runner; raises NotAnswered."""
    answered = anyio.Event()
    answer: list[tuple[RunnerReply | None, str | None]] = []

    def on_reply(reply: RunnerReply | None, problem: str | None) -> None:
        answer.append((reply, problem))
        answered.set()

    runners.call(dataflow_id, request, on_reply)
    await answered.wait()
    reply, problem = answer[0]
    if isinstance(reply, Refusal):
        raise NotAnswered(reply.message)
    if reply is None:
        raise NotAnswered(problem or "the runner did not answer")
    return reply
