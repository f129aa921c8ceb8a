"""Blocking calls in threads that do not delay the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

_Result = TypeVar("_Result")


async def run_in_daemon_thread(function: Callable[[], _Result]) -> _Result:
    """Return what ``function`` returns, or raise what it raises.

    Exceptions that must not end the loop or the task, such as SystemExit, become RuntimeError.
    A cancelled call returns at once; its thread continues, at most until the process ends. (The
    interpreter waits for the threads of `anyio.to_thread` before it exits.)
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(set_outcome: Callable[[], None]) -> None:
        if not future.done():  # not cancelled
            set_outcome()

    def run() -> None:
        try:
            set_outcome: Callable[[], None] = partial(future.set_result, function())
        except BaseException as error:  # noqa: BLE001 - raised in the calling task
            usual = isinstance(error, Exception) and not isinstance(error, StopIteration)
            raised = error if usual else RuntimeError(repr(error))
            set_outcome = partial(future.set_exception, raised)
        with suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(settle, set_outcome)

    threading.Thread(target=run, name="blocking call", daemon=True).start()
    return await future
