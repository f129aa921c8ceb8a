"""The channel to the link process."""

from __future__ import annotations

import asyncio
import socket

import pytest

from dora_daemon.link.protocol import messages
from dora_daemon.runner.link.supervisor import RunnerChannel


def test_a_link_is_killed_after_a_line_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_LINE", 1 << 17)
    warnings: list[str] = []
    killed: list[bool] = []

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        broken = asyncio.Event()

        def kill() -> None:
            killed.append(True)
            broken.set()

        channel = RunnerChannel(ours, lambda message: None, warnings.append, on_broken=kill)
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        sending = asyncio.ensure_future(loop.sock_sendall(theirs, b"x" * (1 << 18)))
        await asyncio.wait_for(broken.wait(), 20)
        sending.cancel()
        channel.read_rest()  # as after the exit of its process
        channel.close()
        theirs.close()

    asyncio.run(scenario())
    assert killed == [True]
    assert len(warnings) == 1
    assert "restarting the link: malformed message" in warnings[0]
