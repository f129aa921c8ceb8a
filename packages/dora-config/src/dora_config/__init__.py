"""What everyone agrees on: descriptors, clusters, placement. Public names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dora_config._version import __version__
from dora_config.errors import (
    ConfigError,
    DoraError,
    InvalidId,
    InvalidTransition,
    LocalProtocolError,
    PlacementError,
    Problem,
    ProtocolError,
    RemoteProtocolError,
)

if TYPE_CHECKING:
    from dora_config.cluster import Cluster, Coordinator, Machine
    from dora_config.cluster_loader import LoadedCluster, load_cluster, parse_cluster
    from dora_config.expand import expand_dataflow
    from dora_config.graph_html import graph_page
    from dora_config.loader import (
        LoadedDataflow,
        LoadedModule,
        load_dataflow,
        load_module,
        parse_dataflow,
    )
    from dora_config.mermaid import mermaid_graph
    from dora_config.placement import (
        ConnectedDaemon,
        Placement,
        UnplacedNodes,
        choose_daemon,
        place,
    )
    from dora_config.resolved import (
        Deploy,
        EnvValue,
        FromMachine,
        GitSource,
        ResolvedDataflow,
        ResolvedInput,
        ResolvedNode,
        ResolvedOperator,
        RestartSettings,
        TypeRule,
    )
    from dora_config.schema import json_schema
    from dora_config.sources import InputSource, LogSource, OutputSource, TimerSource
    from dora_config.variables import expand_path

# The launcher must start without pydantic, so these are imported when they are asked for.
_LAZY = {
    "Cluster": "cluster",
    "Coordinator": "cluster",
    "Machine": "cluster",
    "LoadedCluster": "cluster_loader",
    "load_cluster": "cluster_loader",
    "parse_cluster": "cluster_loader",
    "ConnectedDaemon": "placement",
    "Placement": "placement",
    "UnplacedNodes": "placement",
    "choose_daemon": "placement",
    "place": "placement",
    "expand_path": "variables",
    "expand_dataflow": "expand",
    "mermaid_graph": "mermaid",
    "graph_page": "graph_html",
    "json_schema": "schema",
    "LoadedModule": "loader",
    "load_module": "loader",
    "LoadedDataflow": "loader",
    "load_dataflow": "loader",
    "parse_dataflow": "loader",
    "Deploy": "resolved",
    "EnvValue": "resolved",
    "FromMachine": "resolved",
    "GitSource": "resolved",
    "ResolvedDataflow": "resolved",
    "ResolvedInput": "resolved",
    "ResolvedNode": "resolved",
    "ResolvedOperator": "resolved",
    "RestartSettings": "resolved",
    "TypeRule": "resolved",
    "InputSource": "sources",
    "LogSource": "sources",
    "OutputSource": "sources",
    "TimerSource": "sources",
}

__all__ = [
    "Cluster",
    "ConfigError",
    "ConnectedDaemon",
    "Coordinator",
    "Deploy",
    "DoraError",
    "EnvValue",
    "FromMachine",
    "GitSource",
    "InputSource",
    "InvalidId",
    "InvalidTransition",
    "LoadedCluster",
    "LoadedDataflow",
    "LoadedModule",
    "LocalProtocolError",
    "LogSource",
    "Machine",
    "OutputSource",
    "Placement",
    "PlacementError",
    "Problem",
    "ProtocolError",
    "RemoteProtocolError",
    "ResolvedDataflow",
    "ResolvedInput",
    "ResolvedNode",
    "ResolvedOperator",
    "RestartSettings",
    "TimerSource",
    "TypeRule",
    "UnplacedNodes",
    "__version__",
    "choose_daemon",
    "expand_dataflow",
    "expand_path",
    "graph_page",
    "json_schema",
    "load_cluster",
    "load_dataflow",
    "load_module",
    "mermaid_graph",
    "parse_cluster",
    "parse_dataflow",
    "place",
]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
