"""daemon -> runner: the plan of one dataflow; does no I/O.

Apart from the other messages, since a runner in the foreground needs no others.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedNode
from dora_config.protocol.links import LinkPlan
from dora_config.protocol.runner_events import LogLevel
from dora_config.protocol.runner_message import RunnerMessage


class NodeLocation(RunnerMessage):
    """What preparing a node on this machine found out; everything has a sensible default."""

    working_dir: str | None = None
    """Absolute directory the node runs in; ``None``: the plan's ``working_dir``."""
    python: str | None = None
    """Interpreter of the node's managed environment; ``None``: chosen at start."""
    build_id: str | None = None


class LogSettings(RunnerMessage):
    """Which lines become :class:`LogLine` events. Log files get all that the node's own level
    allows.
    """

    level: LogLevel = "stdout"
    per_node: dict[str, LogLevel] = Field(default_factory=dict)
    """Level by node id; wins over ``level``."""


class RunPlan(RunnerMessage):
    """All a runner needs to know to run (its part of) one dataflow."""

    dataflow_id: str
    name: str | None = None
    resolved: ResolvedDataflow
    descriptor: dict[str, Any] = Field(default_factory=dict)
    """The expanded dataflow, for ``Node.dataflow_descriptor()``."""
    nodes: tuple[str, ...] | None = None
    """Ids of the nodes that run here; ``None``: all of them."""
    working_dir: str
    """Absolute base directory: relative paths start here, logs lie below ``out/<dataflow id>``."""
    create_working_dirs: bool = False
    """Create a missing working directory; otherwise it is an error."""
    places: dict[str, NodeLocation] = Field(default_factory=dict)
    """By node id."""
    env_overrides: dict[str, str] = Field(default_factory=dict)
    """``--env`` of ``run`` and ``start``: above the root ``env``, below the node's own."""
    uv: bool = False
    allow_shell: bool = False
    stop_after: float | None = None
    """Seconds after the start barrier opened until a normal stop."""
    stop_grace: float = 10.0
    """Seconds between the STOP event and SIGTERM; SIGKILL follows half as many later."""
    exit_when_nodes_finish: bool = False
    whole: bool = True
    """No node of the dataflow runs elsewhere, so what depends on all of them is decided here."""
    hold_at_barrier: bool = False
    """Wait for :class:`Release` once all local nodes have connected (others are elsewhere)."""
    machine_id: str | None = None
    daemon_id: str | None = None
    build_id: str | None = None
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """What was set of each node's parameters, by node id and key."""
    logs: LogSettings = LogSettings()
    recovered: str | None = None
    """Why its nodes are started again here; ``None``: they are started for the first time."""
    links: LinkPlan | None = None
    """Edges to and from other machines; ``None``: there are none."""
    credentials: str | None = None
    """Folder with ``ca.pem``, ``cert.pem`` and ``key.pem`` for the link; ``None``: no TLS, which
    the link allows on loopback alone."""

    def local_nodes(self) -> tuple[ResolvedNode, ...]:
        """The nodes that run here, in the order of the file."""
        wanted = None if self.nodes is None else set(self.nodes)
        return tuple(n for n in self.resolved.nodes if wanted is None or n.id in wanted)
