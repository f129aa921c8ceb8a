"""Bodies of requests that are too long, stall or break off."""

from __future__ import annotations

import anyio
import pytest
from starlette.requests import Request
from starlette.types import Message

from dora_config.protocol.rest.errors import OperationFailed
from dora_coordinator.io.rest import routes
from dora_coordinator.io.rest.routes import _body

PIECE: Message = {"type": "http.request", "body": b"12345", "more_body": True}
END: Message = {"type": "http.request", "body": b"", "more_body": False}
GONE: Message = {"type": "http.disconnect"}


def body(*messages: Message, limit: int = 100) -> bytes:
    """Return the body that arrives in these messages; afterwards nothing arrives."""
    arriving = list(messages)

    async def receive() -> Message:
        if not arriving:
            await anyio.sleep_forever()
        return arriving.pop(0)

    return anyio.run(_body, Request({"type": "http", "headers": []}, receive), limit)


def test_a_body_of_the_limit_is_read() -> None:
    assert body(PIECE, PIECE, END, limit=10) == b"1234512345"


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ((PIECE, PIECE, PIECE), "the body has more than 10 bytes"),
        ((PIECE,), r"no whole body within 0\.01 s"),
        ((PIECE, GONE), "the body is not complete"),
    ],
    ids=["too long", "stalled", "broken off"],
)
def test_other_bodies_are_refused(
    messages: tuple[Message, ...], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "BODY_TIMEOUT", 0.01)
    with pytest.raises(OperationFailed, match=problem) as refused:
        body(*messages, limit=10)
    assert refused.value.code == "invalid"
