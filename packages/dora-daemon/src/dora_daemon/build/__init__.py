"""Prepares nodes before they run: git sources, Python environments, build lines, the lock file."""

from __future__ import annotations

from dora_daemon.build.errors import BuildError, LockFileError, NodeFailure, SessionFileError
from dora_daemon.build.service import BuildOptions, BuildResult, prepare
from dora_daemon.build.session_file import BuiltNode

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
