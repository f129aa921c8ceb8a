"""What the page reads from: a coordinator, or the runs of `dora run` on this computer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from dora_cli.coordinator.errors import RequestFailed
from dora_config.access import Endpoint
from dora_config.protocol.control import ControlAnswer, ControlProgress, ControlRequest

T = TypeVar("T", bound=ControlAnswer)


class Replies(Protocol):
    """Progress of one request, and then its answer; iteration raises as `Backend.request`."""

    def __aiter__(self) -> AsyncIterator[ControlProgress | ControlAnswer]: ...

    async def acknowledge(self, stream: int) -> None:
        """Request the next update of a stream."""


class Backend(Protocol):
    """Answers the requests of clients."""

    @property
    def name(self) -> str:
        """What the page shows as its source."""

    @property
    def is_local(self) -> bool:
        """Whether it shows runs of this machine only; they cannot be started or recorded."""

    @property
    def problem(self) -> str | None:
        """Why requests cannot be answered at the moment."""

    def endpoint(self) -> Endpoint:
        """Return where the coordinator listens; raises RequestFailed without one."""

    async def run(self) -> None:
        """Keep connected until cancelled."""

    async def wait_connected(self) -> None:
        """Wait until the problem has ended."""

    async def wait_changed(self) -> None:
        """Wait until a problem appears or disappears."""

    def open(self, request: ControlRequest) -> AbstractAsyncContextManager[Replies]:
        """Send a request with progress; leaving the block cancels it."""

    async def request(self, request: ControlRequest) -> ControlAnswer:
        """Return the answer. Raises RequestFailed and CoordinatorUnavailable."""


async def call(backend: Backend, request: ControlRequest, expected: type[T]) -> T:
    """Return an answer of the expected kind; raises what `Backend.request` raises."""
    answer = await backend.request(request)
    if not isinstance(answer, expected):
        raise RequestFailed(f"unexpected answer {answer.kind!r} of {backend.name}", "failed")
    return answer
