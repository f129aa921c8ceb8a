"""What a build process is given, and what it reports.

Apart from `process`, so that a daemon, which starts builds but makes none, starts without all that
they need.
"""

from __future__ import annotations

from pydantic import Field

from dora_config.dataflow.resolved import ResolvedDataflow
from dora_config.protocol.builds import BuildSettings, FailedNode, NodeBuildEvent
from dora_config.protocol.envelope import Message
from dora_config.protocol.runner import NodeLocation

JOB = "job.json"
"""In the directory of the build."""


class BuildJob(Message):
    """What is to be prepared, and where relative paths start."""

    resolved: ResolvedDataflow
    base_dir: str
    """Absolute; created if it is missing."""
    uv: bool = False
    settings: BuildSettings = BuildSettings()
    own: dict[str, str] = Field(default_factory=dict)
    """See ``BuildOptions.own``."""


class PlacedNode(Message):
    """A prepared node."""

    node: str
    place: NodeLocation
    commit: str | None = None


class Outcome(Message):
    """How it ended; with failures, nothing counts as built."""

    nodes: tuple[PlacedNode, ...] = ()
    failures: tuple[FailedNode, ...] = ()


class Report(Message):
    """One line: news of a node, or (the last one) the outcome."""

    news: NodeBuildEvent | None = None
    outcome: Outcome | None = None
