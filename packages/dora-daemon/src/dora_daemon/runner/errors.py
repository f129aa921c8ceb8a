"""Errors of the runner.

- RunnerError: base of all of them
  - PreparationError: a node cannot be started as the plan says; nothing was spawned
  - QueueUnavailable: an edge cannot have its queue
  - RequestRefused: a request on the control socket that cannot be done
"""

from __future__ import annotations

from dora_config import DoraError


class RunnerError(DoraError):
    """Base of the runner's errors."""


class PreparationError(RunnerError):
    """One or more nodes cannot be prepared; ``problems`` holds a sentence for each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class QueueUnavailable(RunnerError):
    """A queue cannot be made, for want of descriptors or memory."""


class RequestRefused(RunnerError):
    """A request that cannot be done; the text is the answer."""
