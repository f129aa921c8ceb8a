"""Files in the store of a coordinator or daemon."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from dora_config.file_store import FileRefused, FileStore
from dora_coordinator.io.files import EXCEPTION_HANDLERS


def add(store: FileStore, content: bytes) -> str:
    """Store a file and return its SHA-256."""
    digest = hashlib.sha256(content).hexdigest()
    with store.open_partial(digest, 0) as file:
        file.write(content)
        store.publish(digest, file)
    return digest


async def answered(handler: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    """Return the response of a handler, as the application completes it."""
    try:
        return await handler(request)
    except (FileRefused, ClientDisconnect) as problem:
        return await EXCEPTION_HANDLERS[type(problem)](request, problem)
