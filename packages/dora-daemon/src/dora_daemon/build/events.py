"""What happens while nodes are prepared, as told to whoever watches; plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dora_daemon.build.errors import NodeFailure


@dataclass(frozen=True, slots=True)
class NodeBuildStarted:
    """Work on a node that has something to prepare begins."""

    node: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step begins: `action` is what is done, for example the build line."""

    node: str
    action: str


@dataclass(frozen=True, slots=True)
class StepSkipped:
    """Nothing to do: what a step makes is there already."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class BuildOutput:
    """A line that a step printed, standard output and error alike."""

    node: str
    line: str


@dataclass(frozen=True, slots=True)
class NodeBuilt:
    """A node is ready after `seconds`."""

    node: str
    seconds: float


@dataclass(frozen=True, slots=True)
class NodeBuildFailed:
    """A node could not be prepared."""

    failure: NodeFailure


BuildEvent = (
    NodeBuildStarted | StepStarted | StepSkipped | BuildOutput | NodeBuilt | NodeBuildFailed
)
OnBuildEvent = Callable[[BuildEvent], None]
