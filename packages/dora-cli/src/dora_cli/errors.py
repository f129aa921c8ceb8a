"""An exception becomes a message and an exit code, here and nowhere else.

- `UsageError` (typer's): the words were wrong; printed by typer with the usage line, exit 2
- `CommandFailed`: the command has said what went wrong; only the exit code is left
- `DoraError` and below: the sentence and what caused it, exit 1
- `OSError`: the same, with the file named, or the limit that was met
- anything else: a fault of ours, with its traceback, exit 1
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from dora_cli import output

_NO_THREAD = "can't start new thread"
_NO_PROCESS = (
    "as many processes and threads run as are allowed; raise the limit of the user (`ulimit -u`) or"
    " of the service or container (pids)"
)
_REMEDIES: Mapping[int, str] = {
    errno.EMFILE: "; raise the limit (`ulimit -n`)",
    errno.EFBIG: "; raise the limit (`ulimit -f`), which is one of shared memory, too",
    errno.EAGAIN: f"; it may be that {_NO_PROCESS}",
}
"""What helps where the system's words do not say it."""


class CommandFailed(Exception):
    """The command failed and its report is on the terminal already."""

    def __init__(self, exit_code: int = 1) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Failure:
    """What to print under `[ERROR]` (None: nothing more) and the exit code."""

    message: str | None
    exit_code: int


def describe(error: BaseException) -> Failure:
    """The one place that decides how an exception looks to a user."""
    from dora_config import DoraError

    match error:
        case CommandFailed(exit_code=code):
            return Failure(None, code)
        case DoraError() | OSError():
            return Failure(_with_causes(error), 1)
        case RuntimeError() if str(error) == _NO_THREAD:
            return Failure(f"{error}: {_NO_PROCESS}", 1)
        case ExceptionGroup() if len(error.exceptions) == 1:
            return describe(error.exceptions[0])
        case ExceptionGroup() if all(isinstance(e, DoraError | OSError) for e in error.exceptions):
            return Failure("\n".join(_with_causes(part) for part in error.exceptions), 1)
    trace = "".join(traceback.format_exception(error)).rstrip()
    return Failure(f"dora met an error it did not expect; please report it\n{trace}", 1)


def report(error: BaseException) -> int:
    """Print what `describe` says about `error` and return the exit code."""
    failure = describe(error)
    if failure.message is not None:
        output.failure(failure.message)
    return failure.exit_code


def _with_causes(error: BaseException) -> str:
    remedy = _REMEDIES.get(error.errno or 0, "") if isinstance(error, OSError) else ""
    lines = [_sentence(error) + remedy]
    cause = error.__cause__
    while cause is not None:
        sentence = _sentence(cause)
        if sentence not in lines[-1]:
            lines.append(f"  caused by: {sentence}")
        cause = cause.__cause__
    return "\n".join(lines)


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        if not names and isinstance(error, FileNotFoundError):
            # Only the question for the current directory fails without naming a file.
            return "the current directory does not exist any more: change to another one"
        return f"{' -> '.join(names)}: {error.strerror}" if names else error.strerror
    return str(error) or type(error).__name__
