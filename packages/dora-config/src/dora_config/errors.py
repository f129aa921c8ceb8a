"""Errors of dora's wheels, and problems in files; standard library only.

- `DoraError`: root of all expected errors
  - `ConfigError`: a file is invalid; contains every problem found in it
  - `InvalidId`: a name breaks the rules of ids (also a `ValueError`)
  - `RemoteProtocolError`: a received control message is invalid
  - `InvalidTransition`: an event is not allowed in the state of a state machine
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from dora_config.terminal import visible

Severity = Literal["error", "warning", "info"]


class DoraError(Exception):
    """Root of dora's expected errors; `str()` is a message for the user."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem in a file; `line` and `column` count from 1, and 0 means the whole file."""

    file: str
    line: int
    column: int
    message: str
    hint: str | None = None
    severity: Severity = "error"
    end_line: int | None = None
    end_column: int | None = None

    @property
    def location(self) -> str:
        """`file:line:column`, or only the file if the problem has no line."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        severity = "" if self.severity == "error" else f"{self.severity}: "
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.location}: {severity}{self.message}{hint}"

    def to_json(self) -> dict[str, Any]:
        """Return the form for `--format json`, with the keys that editors use."""
        facts: dict[str, Any] = {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "severity": self.severity,
            "message": self.message,
        }
        if self.end_line is not None:
            facts["endLine"] = self.end_line
        if self.end_column is not None:
            facts["endColumn"] = self.end_column
        if self.hint is not None:
            facts["hint"] = self.hint
        return facts


class ConfigError(DoraError):
    """A file is invalid; `problems` contains all problems in file order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems without warnings and remarks."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class InvalidId(DoraError, ValueError):
    """A name breaks the rules of ids; `value` is the name, `reason` the broken rule."""

    def __init__(self, value: str, reason: str) -> None:
        self.value = value
        self.reason = reason
        super().__init__(value, reason)

    def __str__(self) -> str:
        return self.reason


class RemoteProtocolError(DoraError):
    """The other side violated the protocol of the control plane."""


class InvalidTransition(DoraError):
    """An event is not allowed in the present state of a state machine."""

    def __init__(self, subject: object, state: object, event: object) -> None:
        self.subject = subject
        self.state = state
        self.event = event
        super().__init__(subject, state, event)

    def __str__(self) -> str:
        return f"{self.subject} cannot handle {self.event!r} in state {self.state}"


def os_error_text(error: OSError) -> str:
    """Return the reason of an error, after the file that it is about, if there is one."""
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{error.filename}: {reason}"


def error_text(error: DoraError | OSError) -> str:
    """Return the message of an expected error."""
    return os_error_text(error) if isinstance(error, OSError) else str(error)


def first_error(error: BaseException) -> BaseException:
    """Return the error inside the exception groups of task groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _messages(group: BaseExceptionGroup[BaseException]) -> str:
    """Return the messages of all errors in nested groups, one per line."""
    parts = (
        _messages(error) if isinstance(error, BaseExceptionGroup) else str(error)
        for error in group.exceptions
    )
    return "\n".join(parts)


def exit_code(run: Callable[[], int]) -> int:
    """Run a command of a wheel other than dora-cli; print expected errors to stderr."""
    try:
        return run()
    except DoraError as error:
        message = str(error)
    except OSError as error:  # a file or folder without permission or space
        if error.filename is None:
            raise  # only the traceback contains the place
        message = os_error_text(error)
    except ExceptionGroup as group:
        expected, others = group.split(DoraError)
        if expected is None or others is not None:
            raise
        message = _messages(expected)
    sys.stderr.write(f"[ERROR]\n{visible(message)}\n")
    return 1
