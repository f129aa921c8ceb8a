"""Plan of one dataflow, given to its runner; no I/O.

A runner in the foreground needs no other message, so this module does not import them.
"""

from __future__ import annotations

from pydantic import Field

from dora_config.dataflow.resolved import NodeLocation
from dora_config.dataflow.sources import LogLevel
from dora_config.frozen import Frozen
from dora_config.protocol.dataflow_setup import DataflowSetup
from dora_config.protocol.links import LinkPlan


class LogSettings(Frozen):
    """Levels of :class:`LogLine` events; log files use the level of the node alone."""

    level: LogLevel = "stdout"
    per_node: dict[str, LogLevel] = Field(default_factory=dict)
    """Level by node id; overrides ``level``."""


class RunPlan(DataflowSetup):
    """Complete plan for a runner, with the nodes of its part of one dataflow in ``resolved``."""

    dataflow_id: str
    working_dir: str
    """Absolute base of relative paths; logs are written to ``out/<dataflow id>`` below it."""
    create_working_dirs: bool = False
    """Create a missing working directory; otherwise it is an error."""
    places: dict[str, NodeLocation] = Field(default_factory=dict)
    """Places of the nodes, by id."""
    allow_shell: bool = False
    stop_after: float | None = None
    """Seconds after the start barrier opened until a normal stop."""
    stop_grace: float = 10.0
    """Seconds between the STOP event and SIGTERM; SIGKILL follows after half of that time."""
    whole: bool = True
    """Whether all nodes run here, so that the runner decides when the dataflow ends."""
    hold_at_barrier: bool = False
    """Wait for :class:`Release` once all local nodes have connected."""
    machine_id: str | None = None
    daemon_id: str | None = None
    logs: LogSettings = LogSettings()
    revision: int = 0
    """Number of changes of the nodes before this start; see ``RunnerState.revision``."""
    recovered: str | None = None
    """Why the nodes are started again; ``None`` at the first start."""
    links: LinkPlan | None = None
    """Edges to and from other machines, if any."""
    credentials: str | None = None
    """Folder with ``ca.pem``, ``cert.pem`` and ``key.pem`` for the link; ``None``: no TLS, which is
    allowed on loopback only."""
