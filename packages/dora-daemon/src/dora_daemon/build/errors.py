"""Errors of preparing nodes.

- BuildError: some nodes could not be prepared; `failures` has an entry for each
- StepFailed: one step in the preparation of a node failed; it becomes a FailedNode
- LockFileError: the lock file is missing, unreadable or does not match the dataflow file
- SessionFileError: the session file cannot be written
"""

from __future__ import annotations

from pathlib import Path

from dora_config.errors import DoraError
from dora_config.protocol.builds import FailedNode


class StepFailed(DoraError):
    """One step failed; its output was reported before."""


class BuildError(DoraError):
    """Some nodes could not be prepared; the others were."""

    def __init__(self, failures: tuple[FailedNode, ...]) -> None:
        super().__init__(failures)
        self.failures = failures

    def __str__(self) -> str:
        return "\n".join(f'node "{one.node}": {one.message}' for one in self.failures)


class LockFileError(DoraError):
    """The lock file at `path` cannot be used for this dataflow."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class SessionFileError(DoraError):
    """The session file cannot be written."""
