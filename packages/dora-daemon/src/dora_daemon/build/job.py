"""Job and reports of a build process; daemons import this without the code that builds."""

from __future__ import annotations

from pydantic import Field

from dora_config.dataflow.resolved import ResolvedDataflow
from dora_config.protocol.builds import BuildSettings, BuiltNode, FailedNode, NodeBuildEvent
from dora_config.protocol.envelope import Message


class BuildJob(Message):
    """A dataflow to prepare, and the folder that relative paths start from."""

    resolved: ResolvedDataflow
    root: str
    """Folder for the build's runtime directory."""
    base_dir: str
    """Absolute; created if it is missing."""
    uv: bool = False
    settings: BuildSettings = BuildSettings()
    build_keys: dict[str, str] = Field(default_factory=dict)
    """See ``BuildOptions.build_keys``."""


class BuildOutcome(Message):
    """Result of a build; with failures, no node counts as built."""

    nodes: tuple[BuiltNode, ...] = ()
    failures: tuple[FailedNode, ...] = ()


class BuildReport(Message):
    """One line on standard output: an event, or (the last one) the outcome."""

    event: NodeBuildEvent | None = None
    outcome: BuildOutcome | None = None
