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
    from dora_config.loader import LoadedDataflow, load_dataflow, parse_dataflow
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
    from dora_config.sources import InputSource, LogSource, OutputSource, TimerSource

# The launcher must start without pydantic, so these are imported when they are asked for.
_LAZY = {
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
    "ConfigError",
    "Deploy",
    "DoraError",
    "EnvValue",
    "FromMachine",
    "GitSource",
    "InputSource",
    "InvalidId",
    "InvalidTransition",
    "LoadedDataflow",
    "LocalProtocolError",
    "LogSource",
    "OutputSource",
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
    "__version__",
    "load_dataflow",
    "parse_dataflow",
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
