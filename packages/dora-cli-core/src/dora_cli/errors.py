"""The message and the exit code of each exception.

- `UsageError` of typer: wrong command line; typer prints it with the usage line, exit code 2
- `CommandFailed`: the command has printed why it failed; exit code as given
- `DoraError` and subclasses: the message and its causes, exit code 1
- `OSError`: the same, with the file, the plug-in of others that raised it, and a remedy for an
  exhausted limit
- any other: a defect of dora or of a plug-in, printed with its traceback, exit code 1
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from dora_cli import output

_NO_THREAD = "can't start new thread"
_PROCESS_LIMIT = (
    "too many processes and threads; raise the limit of the user (`ulimit -u`), or that of the "
    "service or container (pids)"
)
_REMEDIES: Mapping[int, str] = {
    errno.EMFILE: "; raise the limit (`ulimit -n`)",
    errno.EFBIG: "; raise the limit (`ulimit -f`), which also applies to shared memory",
    errno.ENOSPC: "; free space on the disk of this computer",
    errno.EDQUOT: "; free space, or raise the quota on this computer",
    errno.EAGAIN: f"; possible cause: {_PROCESS_LIMIT}",
}
"""Remedies of system errors whose text has no remedy."""


STOPPED_BY_USER = 130
"""Exit code after Ctrl-C."""


class CommandFailed(Exception):
    """The command failed and has printed why."""

    def __init__(self, exit_code: int = 1) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


@contextmanager
def explained_interrupt(text: str) -> Iterator[None]:
    """Print ``text`` and exit with 130 on Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        output.failure(text)
        raise CommandFailed(STOPPED_BY_USER) from None


def describe(error: BaseException) -> tuple[str | None, int]:
    """Return the text below `[ERROR]` (None: nothing to print) and the exit code."""
    from dora_config.errors import DoraError

    match error:
        case CommandFailed(exit_code=code):
            return None, code
        case DoraError():
            return _with_causes(error), 1
        case OSError():
            found = _in_plugin(error.__traceback__)
            return _with_causes(error) + (f" (in the plug-in {found[0]})" if found else ""), 1
        case RuntimeError() if str(error) == _NO_THREAD:
            return f"{error}: {_PROCESS_LIMIT}", 1
        case ValueError() if "surrogates not allowed" in str(error):
            return "an argument, path or variable is not valid UTF-8; change it", 1
        case ExceptionGroup() if len(error.exceptions) == 1:
            return describe(error.exceptions[0])
        case ExceptionGroup() if all(isinstance(e, DoraError | OSError) for e in error.exceptions):
            return "\n".join(_with_causes(part) for part in error.exceptions), 1
    return _unexpected(error), 1


def _unexpected(error: BaseException) -> str:
    """Return the traceback of a defect; of one in a third-party plug-in, from its first frame."""
    where, trace = "dora; please report it", error.__traceback__
    if (found := _in_plugin(trace)) is not None:
        plugin, trace = found
        where = f"the plug-in {plugin}; please report it to its author"
    text = "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    return f"unexpected error in {where}\n{text}"


def _in_plugin(trace: TracebackType | None) -> tuple[str, TracebackType] | None:
    """Return the plug-in whose package has a frame in a traceback, and that frame."""
    from dora_config import plugins

    packages = plugins.packages_of_others()
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
        if package in packages:
            return packages[package], trace
        trace = trace.tb_next
    return None


def report(error: BaseException) -> int:
    """Print the message of `error` and return the exit code."""
    message, exit_code = describe(error)
    if message is not None:
        output.failure(message)
    return exit_code


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
        if error.strerror.startswith("No usable temporary directory"):  # raised by `tempfile`
            return f"{error.strerror}; free space there, or set TMPDIR to a writable folder"
        if not names and isinstance(error, FileNotFoundError):
            # of the system calls that dora uses, only getcwd fails without a file name
            return "the current directory no longer exists; change to another one"
        return f"{' -> '.join(names)}: {error.strerror}" if names else error.strerror
    return str(error) or type(error).__name__
