"""Messages on a control socket: in pieces, incomplete at the end, and too long."""

from __future__ import annotations

import asyncio

import pytest

from dora_config.protocol.runner import Envelope, Release, RunnerProtocolError, encode_line
from dora_daemon.runner.control.reading import read_message

MESSAGES = [Envelope(id=number, request=Release()) for number in range(3)]
LINES = b"".join(map(encode_line, MESSAGES))


@pytest.mark.parametrize("size", [1, 7, len(LINES)])
def test_messages_arrive_in_pieces_and_an_incomplete_one_is_dropped(size: int) -> None:
    async def read() -> list[object]:
        reader = asyncio.StreamReader()
        for at in range(0, len(LINES), size):
            reader.feed_data(LINES[at : at + size])
        reader.feed_data(b'{"id": 9, "req')
        reader.feed_eof()
        return [await read_message(reader) for _ in range(4)]

    assert asyncio.run(read()) == [*MESSAGES, None]


def test_a_line_above_the_limit_is_refused() -> None:
    async def read() -> None:
        reader = asyncio.StreamReader(limit=100)
        reader.feed_data(b"x" * 101)
        with pytest.raises(RunnerProtocolError, match="message exceeds"):
            await read_message(reader)

    asyncio.run(read())
