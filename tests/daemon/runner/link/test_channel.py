"""A link that says what is no line is not left running deaf."""

from __future__ import annotations

import asyncio
import socket

import pytest

from dora_daemon.link.protocol import messages
from dora_daemon.runner.link.channel import Carrier


def test_a_line_without_an_end_has_the_link_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_LINE", 1 << 17)
    complaints: list[str] = []
    killed: list[bool] = []

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        broken = asyncio.Event()

        def kill() -> None:
            killed.append(True)
            broken.set()

        carrier = Carrier(ours, lambda message: None, complaints.append, broken=kill)
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        sending = asyncio.ensure_future(loop.sock_sendall(theirs, b"x" * (1 << 18)))
        await asyncio.wait_for(broken.wait(), 20)
        sending.cancel()
        carrier.read_rest()  # after its process was reaped
        carrier.close()
        theirs.close()

    asyncio.run(scenario())
    assert killed == [True]
    assert len(complaints) == 1
    assert "is started again" in complaints[0]
