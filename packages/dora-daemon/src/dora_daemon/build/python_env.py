"""Managed Python environments: `<working dir>/.dora/python-envs/<node id>/`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from dora_config.ids import file_stem


def find_uv(environ: Mapping[str, str]) -> str | None:
    """Return the path of uv: on PATH, or in the Python that runs dora."""
    if found := shutil.which("uv", path=environ.get("PATH")):
        return found
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        return None


def environment_dir(working_dir: Path, node: str) -> Path:
    """Return the path of a node's environment, which need not exist."""
    return working_dir / ".dora" / "python-envs" / file_stem(node)


def environment_lock(working_dir: Path, node: str) -> Path:
    """Return the file that is locked while the environment is created."""
    return _beside(working_dir, node, "lock")


def unfinished_mark(working_dir: Path, node: str) -> Path:
    """Return the file that exists until the environment is complete."""
    return _beside(working_dir, node, "unfinished")


def built_mark(working_dir: Path, node: str) -> Path:
    """Return the file with the key of the build that has succeeded."""
    return _beside(working_dir, node, "built")


def _beside(working_dir: Path, node: str, suffix: str) -> Path:
    directory = environment_dir(working_dir, node)
    return directory.with_name(f".{directory.name}.{suffix}")  # ids do not begin with a dot


def environment_python(working_dir: Path, node: str) -> Path | None:
    """Return the interpreter of a node's environment; None if it has no complete environment."""
    if unfinished_mark(working_dir, node).exists():
        return None
    directory = environment_dir(working_dir, node)
    python = directory / "bin" / "python"
    return python if (directory / "pyvenv.cfg").is_file() and python.exists() else None


def create_command(working_dir: Path, node: str, uv: str | None) -> tuple[str, ...]:
    """Return the command that creates the environment of a node.

    uv selects the version in a `.python-version` beside the node, otherwise that of the interpreter
    that runs dora. Without uv the environment has no pip; the pip of dora installs into it.
    """
    directory = str(environment_dir(working_dir, node))
    if uv is None:
        return (sys.executable, "-I", "-m", "venv", "--without-pip", directory)
    chosen = () if (working_dir / ".python-version").is_file() else ("--python", sys.executable)
    return (uv, "venv", "--no-project", *chosen, directory)


def activated(environ: Mapping[str, str], python: Path) -> dict[str, str]:
    """Return `environ` as changed by the activate script of the environment."""
    home = python.parent.parent
    path = environ.get("PATH", "")
    return {
        **{name: value for name, value in environ.items() if name != "PYTHONHOME"},
        "VIRTUAL_ENV": str(home),
        "PATH": f"{python.parent}:{path}" if path else str(python.parent),
    }
