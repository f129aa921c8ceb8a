"""Finds the program of a node's ``path``: a file, or a program on PATH."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from dora_config.plugins import missing_node
from dora_config.yaml.text_files import is_file
from dora_daemon.runner.errors import RunnerError

EXPANDED = ("HOME", "USER", "PWD", "DORA_WORKSPACE")
"""Variables that are expanded in ``path``."""

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class SourceNotFound(RunnerError):
    """``path`` names no program; the message has the full path that was checked."""


def expand(path: str, environ: Mapping[str, str]) -> str:
    """Expand the variables in ``path``."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return environ.get(name, match[0]) if name in EXPANDED else match[0]

    return _VARIABLE.sub(value, path)


def find_program(
    path: str,
    *,
    working_dir: Path,
    variables: Mapping[str, str],
    managed_python: str | None = None,
    own_python: str | None = None,
) -> Path:
    """Return the absolute path of the program.

    With a slash it is a file relative to ``working_dir``; a bare name is looked for in
    ``working_dir``, beside the node's managed interpreter, on PATH, then beside ``own_python``,
    which runs dora (usually ``sys.executable``): services do not have it on PATH. Raises
    SourceNotFound.
    """
    expanded = expand(path, variables)
    in_working_dir = working_dir / expanded
    if is_file(in_working_dir):
        # links are not resolved, because a script imports modules beside the link
        return Path(os.path.normpath(in_working_dir))
    problem = f"Could not find source path `{path}`: {in_working_dir} "
    # Path.is_dir raises if a name is too long
    problem += "is a directory" if os.path.isdir(in_working_dir) else "does not exist"  # noqa: PTH112
    if "/" in expanded:
        raise SourceNotFound(f"{problem} (paths are relative to the node's working directory)")
    if managed_python is not None:
        beside = Path(managed_python).parent / expanded
        if os.access(beside, os.X_OK):
            return beside
    if expanded.endswith(".py"):
        raise SourceNotFound(problem)
    found = shutil.which(expanded, path=variables.get("PATH"))
    if found is not None:
        return Path(found)
    own = Path(sys.executable if own_python is None else own_python).parent / expanded
    if os.access(own, os.X_OK):
        return own
    remedy = missing_node(expanded) or (
        "install the package that has it beside dora, or by `build` of the node"
    )
    raise SourceNotFound(
        f"{problem}, and PATH and {own.parent} have no program of that name; {remedy}"
    )


def require_executable(program: Path, path: str) -> None:
    """Raise SourceNotFound if the file cannot be executed on this machine."""
    if not os.access(program, os.X_OK):
        raise SourceNotFound(
            f"`{path}` is not executable: {program} (chmod +x it, or name it .py if Python is to"
            " run it)"
        )
