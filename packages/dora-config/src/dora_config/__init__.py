"""Dataflow and cluster files, and errors; names are imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dora_config._version import __version__
from dora_config.errors import (
    ConfigError,
    DoraError,
    InvalidId,
    InvalidTransition,
    PlacementError,
    Problem,
    ProtocolError,
)

if TYPE_CHECKING:
    from dora_config.cluster.loader import LoadedCluster, load_cluster, parse_cluster
    from dora_config.cluster.models import Cluster, Coordinator, Machine
    from dora_config.dataflow.expand import expand_dataflow
    from dora_config.dataflow.loader import (
        LoadedDataflow,
        LoadedModule,
        load_dataflow,
        load_module,
        parse_dataflow,
    )
    from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedInput, ResolvedNode
    from dora_config.render.mermaid import mermaid_graph
    from dora_config.render.schema import json_schema

_LAZY = {
    "cluster.loader": ("LoadedCluster", "load_cluster", "parse_cluster"),
    "cluster.models": ("Cluster", "Coordinator", "Machine"),
    "dataflow.expand": ("expand_dataflow",),
    "dataflow.loader": (
        *("LoadedDataflow", "LoadedModule"),
        *("load_dataflow", "load_module", "parse_dataflow"),
    ),
    "dataflow.resolved": ("ResolvedDataflow", "ResolvedInput", "ResolvedNode"),
    "render.mermaid": ("mermaid_graph",),
    "render.schema": ("json_schema",),
}
"""Names by module; imported on first use, so that the launcher starts without pydantic."""

__all__ = [
    "Cluster",
    "ConfigError",
    "Coordinator",
    "DoraError",
    "InvalidId",
    "InvalidTransition",
    "LoadedCluster",
    "LoadedDataflow",
    "LoadedModule",
    "Machine",
    "PlacementError",
    "Problem",
    "ProtocolError",
    "ResolvedDataflow",
    "ResolvedInput",
    "ResolvedNode",
    "__version__",
    "expand_dataflow",
    "json_schema",
    "load_cluster",
    "load_dataflow",
    "load_module",
    "mermaid_graph",
    "parse_cluster",
    "parse_dataflow",
]


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
