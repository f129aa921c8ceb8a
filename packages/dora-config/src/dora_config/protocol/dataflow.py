"""What a started dataflow is to CLI, coordinator and daemon alike; log filters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dora_config import ResolvedDataflow, ResolvedNode
from dora_config.ids import parse_node_id
from dora_config.protocol.envelope import Message
from dora_config.protocol.runner import LogLevel, NodeLocation


class Origin(Message):
    """Where the descriptor lay when it was started, so that a daemon can tell whether it sees that
    folder.
    """

    boot_id: str = ""
    """Of the machine of the CLI; empty: unknown, hence never the same machine."""
    directory: str = ""
    """Absolute folder of the YAML file."""
    device: int = 0
    inode: int = 0
    """Of that folder: a container that shares the kernel may have another under the same name."""
    file_name: str = "dataflow.yml"


DataflowUuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
"""Names files on daemons, so nothing else passes."""


class DataflowSpec(Message):
    """Everything that is needed to start a dataflow, and to start it again."""

    resolved: ResolvedDataflow
    descriptor: dict[str, Any] = Field(default_factory=dict)
    """The expanded dataflow, for ``Node.dataflow_descriptor()``."""
    name: str | None = Field(default=None, min_length=1, max_length=256)
    origin: Origin = Origin()
    workspace: str = Field(default="", pattern=r"^([A-Za-z0-9_-][A-Za-z0-9_.-]{0,127})?$")
    """Folder name below ``_work`` of daemons that do not see the origin; the same at each start."""
    places: dict[str, NodeLocation] = Field(default_factory=dict)
    """What the last build made, by node id; of use only where the origin is seen."""
    env_overrides: dict[str, str] = Field(default_factory=dict)
    uv: bool = False
    exit_when_nodes_finish: bool = False
    build_id: str | None = None
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Parameters as they were set while it ran, by node id and key."""
    built_on: dict[str, str] = Field(default_factory=dict)
    """Where that build was done by daemons: the daemon of each node that had something to prepare.
    """
    code: dict[str, str] = Field(default_factory=dict)
    """By node id: the digest of its ``CodeSet``, for nodes whose code is sent to their machine."""
    delivered_by: str | None = None
    """The build in which that code was laid out on the machines."""
    allow_unlinked: bool = False
    """Start although machines that exchange data cannot reach each other."""

    @field_validator("name")
    @classmethod
    def _printable(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            raise ValueError("the name of a dataflow must not have control characters")
        return value

    @field_validator("resolved")
    @classmethod
    def _node_ids(cls, value: ResolvedDataflow) -> ResolvedDataflow:
        for node in value.nodes:
            parse_node_id(node.id)  # they name files on daemons
        return value

    def with_nodes(self, nodes: tuple[ResolvedNode, ...]) -> DataflowSpec:
        """The same with only ``nodes``, as it is sent to the daemon that runs them."""
        resolved = self.resolved.model_copy(update={"nodes": nodes})
        return self.model_copy(update={"resolved": resolved})


class LogFilter(Message):
    """Which lines of the log files; applied in the order time, level, text, tail."""

    since: float | None = None
    """Unix time in seconds."""
    until: float | None = None
    level: LogLevel = "stdout"
    grep: str | None = None
    tail: int | None = None


NodeView = Literal[
    "Starting",
    "Running",
    "Restarting",
    "Degraded",
    "Stopping",
    "Finished",
    "Failed",
    "Stopped",
    "Unknown",
]
"""State of a node as the coordinator shows it; ``Unknown``: its machine cannot be reached."""
