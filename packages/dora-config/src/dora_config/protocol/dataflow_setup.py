"""Fields of a dataflow that the request to start it and the plan of a runner share; no I/O."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dora_config.dataflow.resolved import ResolvedDataflow
from dora_config.frozen import Frozen


class DataflowSetup(Frozen):
    """Base of `DataflowSpec` and `RunPlan`."""

    resolved: ResolvedDataflow
    descriptor: dict[str, Any] = Field(default_factory=dict)
    """The expanded dataflow, for ``Node.dataflow_descriptor()``."""
    name: str | None = None
    env_overrides: dict[str, str] = Field(default_factory=dict)
    """``--env`` of ``run`` and ``start``: above the root ``env``, below the node's own."""
    uv: bool = False
    exit_when_nodes_finish: bool = False
    build_id: str | None = None
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Parameters that were set at run time, by node id and key."""
    stopped: tuple[str, ...] = ()
    """Nodes that an operator has stopped; they are not started until one restarts them."""
