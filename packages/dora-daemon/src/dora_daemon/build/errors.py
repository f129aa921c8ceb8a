"""Errors of preparing nodes.

- BuildError: one or more nodes could not be prepared; `failures` holds a NodeFailure for each
- StepFailed: one step of one node's preparation failed (becomes a NodeFailure)
- LockFileError: the lock file is missing, unreadable or does not fit the dataflow file
- SessionFileError: the session file cannot be written
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dora_config import DoraError


class StepFailed(DoraError):
    """One step failed; `output` is the tail of what it printed."""

    def __init__(self, message: str, output: tuple[str, ...] = ()) -> None:
        super().__init__(message, output)
        self.message = message
        self.output = output

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class NodeFailure:
    """Why one node could not be prepared; `output` is the tail of what the failed step printed."""

    node: str
    message: str
    output: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f'node "{self.node}": {self.message}', *[f"  {x}" for x in self.output]])


class BuildError(DoraError):
    """Some nodes could not be prepared; the others were, and stay so."""

    def __init__(self, failures: tuple[NodeFailure, ...]) -> None:
        super().__init__(failures)
        self.failures = failures

    def __str__(self) -> str:
        return "\n".join(str(failure) for failure in self.failures)


class LockFileError(DoraError):
    """The lock file at `path` cannot be used for this dataflow."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class SessionFileError(DoraError):
    """The session file cannot be written."""
