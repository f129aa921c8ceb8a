"""Requests over one WebSocket of which a reader stalls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import anyio
import pytest
from support.waiting import wait_until_async
from websockets.asyncio.client import ClientConnection

from dora_cli.coordinator.errors import CoordinatorLost
from dora_cli.ui.connection import MAX_WAITING, AsyncClient, ReplyStream
from dora_config.access import Endpoint
from dora_config.protocol.control import (
    CLIENT_CODEC,
    SERVER_CODEC,
    Answer,
    Cancel,
    ControlAnswer,
    ControlProgress,
    DataflowList,
    ListDataflows,
    LogLines,
    Progress,
    Welcome,
)
from dora_config.protocol.envelope import ProgramVersion

LINES = LogLines(daemon="robot", stream=1, lines=("a line",))
STALLED, OTHER = 1, 2


class FakeSocket:
    """Sends more progress than may wait, then an answer to another request."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.is_read = False
        """Whether all frames were received."""

    async def send(self, text: str) -> None:
        self.sent.append(text)

    async def __aiter__(self) -> AsyncIterator[str]:
        await wait_until_async(lambda: len(self.sent) == 2, what="both requests")
        for _ in range(MAX_WAITING + 3):
            yield SERVER_CODEC.encode(Progress(id=STALLED, progress=LINES))
        yield SERVER_CODEC.encode(Answer(id=OTHER, answer=DataflowList()))
        self.is_read = True
        await anyio.sleep_forever()


def test_a_stalled_reader_ends_its_own_request_only() -> None:
    socket = FakeSocket()
    party = ProgramVersion(program="dora-coordinator", release="0")
    client = AsyncClient(
        Endpoint("127.0.0.1", 6013),
        cast("ClientConnection", socket),
        Welcome(party=party, max_message_bytes=1 << 20),
    )
    received: list[ControlProgress | ControlAnswer] = []
    answers: list[ControlAnswer] = []

    async def ask() -> None:
        async with client.open(ListDataflows()) as replies:
            answers.extend([reply async for reply in replies])  # type: ignore[misc]

    async def read(replies: ReplyStream) -> None:
        async for reply in replies:
            received.append(reply)

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.read)
            async with client.open(ListDataflows()) as stalled:
                tasks.start_soon(ask)
                await wait_until_async(lambda: socket.is_read, what="all frames to be received")
                with pytest.raises(CoordinatorLost, match="were not read in time"):
                    await read(stalled)
            await wait_until_async(lambda: answers, what="the other answer")
            tasks.cancel_scope.cancel()

    anyio.run(run)
    assert received == [LINES] * MAX_WAITING
    assert answers == [DataflowList()]
    assert Cancel(id=STALLED) in [CLIENT_CODEC.decode(text) for text in socket.sent]
