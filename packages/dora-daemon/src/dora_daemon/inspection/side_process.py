"""Arguments and messages of inspector, recorder and build processes.

Arguments: the runner's socket, unless it is a build, and the descriptor of an inherited file with
the request. Messages are written to standard output, a line of JSON each; the end of standard input
ends the process.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TypeVar

from dora_config.protocol.envelope import Message

NICENESS = 5
"""Lowers the priority below that of nodes."""

M = TypeVar("M", bound=Message)


def prepare(kind: type[M]) -> tuple[Path, M]:
    """Return the runner's socket and the request.

    Lowers the priority and ignores Ctrl-C, which ends the starting process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    return Path(sys.argv[1]), read_request(kind)


def read_request(kind: type[M]) -> M:
    with open(int(sys.argv[-1]), "rb") as request:
        return kind.model_validate_json(request.read())


def write_line(message: Message) -> None:
    """Write a message as a line of JSON to standard output. Raises BrokenPipeError."""
    line = message.model_dump_json().encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]
