"""Dataflow and cluster files, and errors; `load_dataflow` is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dora_config._version import __version__
from dora_config.errors import ConfigError

if TYPE_CHECKING:
    from dora_config.dataflow.loader import load_dataflow

__all__ = ["ConfigError", "__version__", "load_dataflow"]


def __getattr__(name: str) -> Any:
    if name == "load_dataflow":  # the launcher starts without pydantic
        from dora_config.dataflow.loader import load_dataflow

        return load_dataflow
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
