"""Managed Python environments: `<working dir>/.dora/python-envs/<node id>/`, made by uv."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from dora_config.ids import file_stem
from dora_daemon.build.command import OnCommand, OnLine, run_command
from dora_daemon.build.errors import StepFailed


def find_uv(environ: Mapping[str, str]) -> str | None:
    """The program uv: on PATH, or beside the interpreter that runs dora."""
    beside = Path(sys.executable).with_name("uv")
    return shutil.which("uv", path=environ.get("PATH")) or (
        str(beside) if beside.is_file() else None
    )


def environment_dir(working_dir: Path, node: str) -> Path:
    """Where the environment of a node lies, whether it exists or not."""
    return working_dir / ".dora" / "python-envs" / file_stem(node)


def environment_python(working_dir: Path, node: str) -> Path | None:
    """The interpreter of a node's managed environment, None when it has none."""
    directory = environment_dir(working_dir, node)
    python = directory / "bin" / "python"
    return python if (directory / "pyvenv.cfg").is_file() and python.exists() else None


async def create_environment(
    working_dir: Path,
    node: str,
    *,
    uv: str,
    environ: Mapping[str, str],
    on_line: OnLine | None = None,
    on_command: OnCommand | None = None,
) -> Path:
    """Make the environment of a node and return its interpreter; raises StepFailed.

    It gets the version of the interpreter that runs dora, unless a `.python-version` beside the
    node asks for another.
    """
    directory = environment_dir(working_dir, node)
    shutil.rmtree(directory, ignore_errors=True)  # without an interpreter in it: half made
    directory.parent.mkdir(parents=True, exist_ok=True)
    chosen = () if (working_dir / ".python-version").is_file() else ("--python", sys.executable)
    words = (uv, "venv", "--no-project", *chosen, str(directory))
    outcome = await run_command(
        words, cwd=working_dir, env=environ, on_line=on_line, on_command=on_command
    )
    python = environment_python(working_dir, node)
    if not outcome.ok or python is None:
        raise StepFailed(
            f"cannot make the Python environment {directory} ({outcome})", outcome.tail
        )
    return python


def activated(environ: Mapping[str, str], python: Path) -> dict[str, str]:
    """`environ` as the environment's activate script would leave it."""
    home = python.parent.parent
    path = environ.get("PATH", "")
    return {
        **{name: value for name, value in environ.items() if name != "PYTHONHOME"},
        "VIRTUAL_ENV": str(home),
        "PATH": f"{python.parent}:{path}" if path else str(python.parent),
    }
