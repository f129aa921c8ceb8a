"""State that the interpreter keeps of threads that it did not start."""

from __future__ import annotations

import threading

from support.waiting import wait_until

from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.protocol.priority import Priority


def test_the_state_of_a_receiving_thread_is_kept_between_frames() -> None:
    """An attribute of a `threading.local` goes with the state."""
    local = threading.local()
    calls: list[int] = []

    def received(_session: LinkSession, frame: bytes) -> None:
        local.calls = getattr(local, "calls", 0) + (frame == b"x")
        calls.append(local.calls)

    listening = LinkSession.listen("127.0.0.1", list(range(7447, 7547)), None)
    sending = LinkSession.dial(listening.endpoint, None)
    try:
        listening.subscribe("dora/test", received)
        put = sending.publishers("dora/test")[Priority.SMALL]

        def arrives() -> bool:
            put(b"first")
            return bool(calls)

        wait_until(arrives, what="the subscription to be known")
        for _ in range(50):
            put(b"x")
        wait_until(lambda: sum(1 for count in calls if count) >= 50, what="all frames")
    finally:
        sending.close()
        listening.close()
    assert max(calls) > 1
