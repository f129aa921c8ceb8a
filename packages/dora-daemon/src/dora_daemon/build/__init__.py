"""Prepares nodes before they run: git sources, Python environments, build lines, the lock file.

Public names load on first use: `dora run` asks for them only when there is something to build.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dora_daemon.build.errors import BuildError, LockFileError, NodeFailure, SessionFileError
    from dora_daemon.build.service import BuildOptions, BuildResult, prepare
    from dora_daemon.build.session_file import BuiltNode

_MODULES = {
    "BuildError": "errors",
    "LockFileError": "errors",
    "NodeFailure": "errors",
    "SessionFileError": "errors",
    "BuildOptions": "service",
    "BuildResult": "service",
    "prepare": "service",
    "BuiltNode": "session_file",
}

__all__ = [
    "BuildError",
    "BuildOptions",
    "BuildResult",
    "BuiltNode",
    "LockFileError",
    "NodeFailure",
    "SessionFileError",
    "prepare",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
