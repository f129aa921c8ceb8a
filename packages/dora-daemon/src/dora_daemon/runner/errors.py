"""Errors of the runner.

- RunnerError: base of all of them
  - PreparationError: a node cannot be started as planned; nothing was spawned
  - QueueUnavailable: the queue of an edge cannot be created
  - RequestRefused: a request on the control socket failed
    - PartEnds: because the runner ends
"""

from __future__ import annotations

from dora_config.errors import DoraError


class RunnerError(DoraError):
    """Base of the runner's errors."""


class PreparationError(RunnerError):
    """One or more nodes cannot be prepared; ``problems`` has a message for each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class QueueUnavailable(RunnerError):
    """A queue cannot be created, for lack of descriptors or memory."""


class RequestRefused(RunnerError):
    """A request failed; the message is the reply."""


class PartEnds(RequestRefused):
    """The nodes of this machine have ended, or are being stopped."""
