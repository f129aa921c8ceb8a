"""Runs one request: ``MODULE.FUNCTION`` with its arguments; sends the result or the problem."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
from importlib import import_module
from typing import Any

from dora_cluster.remote_program.protocol import (
    RemoteProblem,
    decode_request,
    send_problem,
    send_result,
)


def main() -> int:
    """Return the exit code: 1 after a problem."""
    try:
        command, arguments = decode_request(sys.stdin.buffer.readline())
        # versions are for all users of the machine, everything else for this one
        os.umask(0o022 if command.startswith("versions.") else 0o077)
        if command == "versions.unpack":
            _end_with_connection()
        result = run(command, arguments)
    except RemoteProblem as problem:
        send_problem(str(problem))
        return 1
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        text = f"{named}{error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text += "; free some space on this machine, then run the command again"
        send_problem(text)
        return 1
    if result is not None:
        send_result(result)
    return 0


def _end_with_connection() -> None:
    """End this process, after its cleanup, when its output is closed at the other end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def watch() -> None:
        poll = select.poll()
        poll.register(1, 0)  # errors and hang-ups are always reported
        poll.poll()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run(command: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result of a command; imports only the module that it needs."""
    module, _, function = command.partition(".")
    found = getattr(import_module(f"dora_cluster.remote_program.{module}"), function)
    result: dict[str, Any] | None = found(**arguments)
    return result
