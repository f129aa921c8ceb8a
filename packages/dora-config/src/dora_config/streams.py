"""End of the standard streams: Python exits with 120 when it cannot flush them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final, TextIO

STANDARD_OUTPUT: Final = "standard output"
"""File name in errors of standard output."""


def discard(stream: TextIO) -> None:
    """Redirect a stream and its unwritten text to /dev/null."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def finish() -> OSError | None:
    """Flush both streams and discard what cannot be written; return the error of standard output.

    The error has `STANDARD_OUTPUT` as its file name.
    """
    problem = None
    for stream in (sys.stdout, sys.stderr):
        if stream is None:  # closed (`>&-`)
            continue
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            with suppress(OSError, ValueError):  # closed, or without a descriptor
                discard(stream)
            if stream is sys.stdout and isinstance(error, OSError):
                error.filename = STANDARD_OUTPUT
                problem = error
    return problem


def report_unwritten(problem: OSError) -> int:
    """Print the error of standard output that `finish` returned; return the exit code."""
    with suppress(OSError):
        sys.stderr.write(f"[ERROR]\n{problem.filename}: {problem.strerror}\n")
    finish()
    return 1
