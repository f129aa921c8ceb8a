"""The errors of dora's wheels, and a problem in a file; standard library only.

- `DoraError`: the root of everything that is raised on purpose
  - `ConfigError`: a file is wrong; carries every problem found in it
  - `InvalidId`: a name breaks the rules of ids (also a `ValueError`)
  - `PlacementError`: a node has no daemon to run on
  - `ProtocolError`: a control message is wrong
    - `LocalProtocolError`: this side would have sent it
    - `RemoteProtocolError`: the other side sent it
  - `InvalidTransition`: a state machine was given an event that its state does not allow
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]


class DoraError(Exception):
    """Root of the errors that dora raises on purpose; `str()` is a sentence for the user."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file.

    `line` and `column` count from 1; 0 means that the whole file is meant.
    """

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
        """`file:line:column`, or the file alone when the problem has no line."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        severity = "" if self.severity == "error" else f"{self.severity}: "
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.location}: {severity}{self.message}{hint}"

    def to_json(self) -> dict[str, Any]:
        """The shape of `--format json`: keys as editors know them, absent when unknown."""
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
    """A file cannot be used; `problems` holds every reason that was found, in file order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that made the file unusable, without warnings and remarks."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class InvalidId(DoraError, ValueError):
    """A name breaks the rules of ids; `value` is the name, the sentence says which rule."""

    def __init__(self, value: str, reason: str) -> None:
        self.value = value
        self.reason = reason
        super().__init__(value, reason)

    def __str__(self) -> str:
        return self.reason


class PlacementError(DoraError):
    """A node has no daemon to run on; `node` is its id."""

    def __init__(self, node: str, reason: str) -> None:
        self.node = node
        self.reason = reason
        super().__init__(node, reason)

    def __str__(self) -> str:
        return f'node "{self.node}": {self.reason}'


class ProtocolError(DoraError):
    """A control message breaks the protocol."""


class LocalProtocolError(ProtocolError):
    """This side was about to break the protocol: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol."""


class InvalidTransition(DoraError):
    """A state machine was given an event that its state does not allow."""

    def __init__(self, subject: object, state: object, event: object) -> None:
        self.subject = subject
        self.state = state
        self.event = event
        super().__init__(subject, state, event)

    def __str__(self) -> str:
        return f"{self.subject} cannot handle {self.event!r} in state {self.state}"


def _sentences(group: BaseExceptionGroup[BaseException]) -> str:
    """What the errors in a group say, one a line, however deep they lie."""
    parts = (
        _sentences(error) if isinstance(error, BaseExceptionGroup) else str(error)
        for error in group.exceptions
    )
    return "\n".join(parts)


def exit_code(run: Callable[[], int]) -> int:
    """What a command that is no part of dora-cli returns: its errors are sentences on stderr."""
    try:
        return run()
    except DoraError as error:
        message = str(error)
    except OSError as error:  # a file or folder that this account cannot make, read or write
        if error.filename is None:
            raise
        message = f"{error.filename}: {error.strerror}"
    except ExceptionGroup as group:
        expected, others = group.split(DoraError)
        if expected is None or others is not None:
            raise
        message = _sentences(expected)
    sys.stderr.write(f"[ERROR]\n{message}\n")
    return 1
