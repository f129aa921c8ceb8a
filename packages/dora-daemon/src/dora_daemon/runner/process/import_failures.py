"""Explains failed imports of a node from the last line of its traceback, with the remedy."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

from dora_daemon.build.arrow_versions import CURE
from dora_daemon.runner.process.injection import LaunchFacts, shebang

_OLD_NUMPY = re.compile(r"^ImportError: pyarrow requires NumPy \d\S* or newer, found (\S+)")
_NO_NUMPY = re.compile(r"^ImportError: .*NumPy is not present")
_MISSING = re.compile(r"^ModuleNotFoundError: No module named '([^']+)'")
_OWN_ENVIRONMENT = "/.dora/python-envs/"


def explain_import(
    facts: LaunchFacts, tail: Sequence[str], cwd: Path, variables: Mapping[str, str]
) -> str | None:
    """Return a sentence about a failed import; None if no import failed."""
    last = next((line for line in reversed(tail) if line.strip()), "")
    python = _interpreter(facts)
    if python is None or facts.shell:
        return None
    if found := _OLD_NUMPY.match(last):
        problem = f"its pyarrow needs NumPy 2, and NumPy {found[1]} is installed"
        return f"{problem}; {_install_line(python, CURE)}"
    if _NO_NUMPY.match(last):
        return f"{python}, which ran it, has no NumPy; {_install_line(python, 'numpy')}"
    if (found := _MISSING.match(last)) is None:
        return None
    module = found[1].partition(".")[0]
    ran = f"{python}, which ran it, has no module {module}"
    for home in _environments(facts, cwd, variables):
        if str(home) != str(Path(python).parent.parent) and _has(home, module):
            return f"{ran}, but {home} has; {_use(home, facts, cwd)}"
    return f"{ran}; a line of its `build` can install the package"


def _interpreter(facts: LaunchFacts) -> str | None:
    """Return the Python that ran a node; None if that is unknown, as with `uv run`."""
    first = facts.argv[0] if facts.argv else ""
    words = [first] if Path(first).name.startswith("python") else shebang(Path(first))
    return words[0] if words and Path(words[0]).name.startswith("python") else None


def _install_line(python: str, library: str) -> str:
    if _OWN_ENVIRONMENT in python:  # it has no pip
        return f"add a line `pip install {quote(library)}` to the node's `build`"
    return f"run: {quote(python)} -m pip install {quote(library)}"


def _environments(facts: LaunchFacts, cwd: Path, variables: Mapping[str, str]) -> list[Path]:
    """Return the activated environment, and those beside the node."""
    beside = [cwd, *([facts.script.parent] if facts.script is not None else [])]
    found = [Path(variables["VIRTUAL_ENV"])] if variables.get("VIRTUAL_ENV") else []
    return [*found, *(folder / ".venv" for folder in beside)]


def _has(home: Path, module: str) -> bool:
    names = (module, f"{module}.py", f"{module}.*.so")
    return any(next(home.glob(f"lib/python3*/site-packages/{name}"), None) for name in names)


def _use(home: Path, facts: LaunchFacts, cwd: Path) -> str:
    """Return how to run the node with an environment."""
    text = f"dora runs nodes with its own Python ({sys.executable}): install dora into {home}"
    if facts.script is None:
        return text
    script = facts.script.relative_to(cwd) if facts.script.is_relative_to(cwd) else facts.script
    return f"{text}, or write `path: {home}/bin/python` and `args: {script}`"
