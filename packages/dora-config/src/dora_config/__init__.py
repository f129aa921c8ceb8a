"""Dataflow and cluster files, placement and control messages; names are imported on first use."""

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
    from dora_config.dataflow.placement import (
        ConnectedDaemon,
        Placement,
        UnplacedNodes,
        choose_daemon,
        place,
    )
    from dora_config.dataflow.resolved import (
        EnvValue,
        FromMachine,
        GitSource,
        ResolvedDataflow,
        ResolvedDeploy,
        ResolvedInput,
        ResolvedNode,
        ResolvedOperator,
        ResolvedTypeRule,
        RestartSettings,
    )
    from dora_config.dataflow.sources import InputSource, LogSource, OutputSource, TimerSource
    from dora_config.dataflow.variables import expand_path
    from dora_config.render.graph_html import graph_page
    from dora_config.render.mermaid import mermaid_graph
    from dora_config.render.schema import json_schema

# imported on first use, so that the launcher starts without pydantic
_LAZY = {
    "Cluster": "cluster.models",
    "Coordinator": "cluster.models",
    "Machine": "cluster.models",
    "LoadedCluster": "cluster.loader",
    "load_cluster": "cluster.loader",
    "parse_cluster": "cluster.loader",
    "ConnectedDaemon": "dataflow.placement",
    "Placement": "dataflow.placement",
    "UnplacedNodes": "dataflow.placement",
    "choose_daemon": "dataflow.placement",
    "place": "dataflow.placement",
    "expand_path": "dataflow.variables",
    "expand_dataflow": "dataflow.expand",
    "mermaid_graph": "render.mermaid",
    "graph_page": "render.graph_html",
    "json_schema": "render.schema",
    "LoadedModule": "dataflow.loader",
    "load_module": "dataflow.loader",
    "LoadedDataflow": "dataflow.loader",
    "load_dataflow": "dataflow.loader",
    "parse_dataflow": "dataflow.loader",
    "ResolvedDeploy": "dataflow.resolved",
    "EnvValue": "dataflow.resolved",
    "FromMachine": "dataflow.resolved",
    "GitSource": "dataflow.resolved",
    "ResolvedDataflow": "dataflow.resolved",
    "ResolvedInput": "dataflow.resolved",
    "ResolvedNode": "dataflow.resolved",
    "ResolvedOperator": "dataflow.resolved",
    "RestartSettings": "dataflow.resolved",
    "ResolvedTypeRule": "dataflow.resolved",
    "InputSource": "dataflow.sources",
    "LogSource": "dataflow.sources",
    "OutputSource": "dataflow.sources",
    "TimerSource": "dataflow.sources",
}

__all__ = [
    "Cluster",
    "ConfigError",
    "ConnectedDaemon",
    "Coordinator",
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
    "ResolvedDeploy",
    "ResolvedInput",
    "ResolvedNode",
    "ResolvedOperator",
    "ResolvedTypeRule",
    "RestartSettings",
    "TimerSource",
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
