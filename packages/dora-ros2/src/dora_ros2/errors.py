"""Errors of dora-ros2.

- Ros2Error
    - DefinitionError: an interface definition is missing or invalid
    - MalformedMessage: a payload is not a message of its type, or a value does not fit a type
    - InvalidName: a name of ROS is invalid
    - SessionError: a Zenoh session cannot be opened, or is closed
    - NoReply: a service, action or parameter request failed
    - GoalError: a goal was rejected, or cannot change to a state
"""

from __future__ import annotations

from pathlib import Path


class Ros2Error(RuntimeError):
    """Root of the errors of this package."""


class DefinitionError(Ros2Error, ValueError):
    """An interface definition is missing or invalid."""

    def __init__(
        self, problem: str, *, remedy: str = "", file: Path | str = "", line: int = 0
    ) -> None:
        super().__init__(problem, remedy, file, line)
        self.problem = problem
        self.remedy = remedy
        self.file = str(file)
        self.line = line

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part)
        text = f"{place}: {self.problem}" if place else self.problem
        return f"{text}; {self.remedy}" if self.remedy else text


class MalformedMessage(Ros2Error, ValueError):
    """A payload is not a message of its type, or a value does not fit the type of a message."""


class InvalidName(Ros2Error):
    """The name of a topic, service, node, namespace, type or domain is invalid."""


class SessionError(Ros2Error):
    """A Zenoh session cannot be opened, or it or one of its endpoints is closed."""


class NoReply(Ros2Error):
    """A request got no reply, or the reply was an error."""


class GoalError(Ros2Error):
    """A goal was rejected, is unknown, or cannot change to a state."""
