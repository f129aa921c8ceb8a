"""A Zenoh router of the tests, which forwards as `rmw_zenohd` does, and sessions that use it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import zenoh
from support import fork_server
from support.waiting import wait_until

from dora_ros2.zenoh.graph import Profile
from dora_ros2.zenoh.session import ZenohSession, open_router


def free_port() -> int:
    """Return a port of the loopback interface that was free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def open_sockets() -> set[str]:
    """Return the sockets of this process without that of the fork server.

    Zenoh closes some shortly after their sessions.
    """
    links = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if entry.name != str(fork_server.descriptor()):
                links.add(str(entry.readlink()))
    return {link for link in links if link.startswith("socket:")}


class Router:
    """A router on one port; may be stopped and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"tcp/127.0.0.1:{self.port}"
        self._session: zenoh.Session | None = None

    def start(self) -> None:
        """Start it."""
        self._session = open_router(self.endpoint)

    def stop(self) -> None:
        """Stop it; again does nothing."""
        if self._session is not None:
            self._session.close()  # type: ignore[no-untyped-call]
            self._session = None

    def open(
        self,
        *,
        domain: int | None = None,
        profile: Profile | None = None,
        override: str = "",
        on_state: Callable[[str | None], None] | None = None,
    ) -> ZenohSession:
        """Open a session that connects to this router."""
        return ZenohSession(
            domain=domain,
            router=self.endpoint,
            profile=profile,
            on_state=on_state,
            environ={"ZENOH_CONFIG_OVERRIDE": override},
        )


@contextmanager
def running_router() -> Iterator[Router]:
    """A router until the end of the block."""
    router, before = Router(), open_sockets()
    router.start()
    try:
        yield router
    finally:
        router.stop()
        wait_until(lambda: open_sockets() <= before, what="the sockets of the router to close")
