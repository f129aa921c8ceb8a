"""Chooses the Python of a node: its own environment, uv, the one that runs dora, then PATH."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from dora_config.installation import wheel_source
from dora_daemon.runner.errors import RunnerError

OLDEST_PYTHON = (3, 11)
"""Oldest version of Python that runs nodes."""
_CHECK = """
import sys
facts = "dora-python %d %d" % sys.version_info[:2]
if sys.version_info >= (3, 11):
    import importlib.util
    for name in sys.argv[1:]:
        if importlib.util.find_spec(name) is None:
            facts += " " + name
print(facts)
"""
_FACTS = re.compile(r"^dora-python (\d+) (\d+)([\w ]*)$", re.MULTILINE)
"""The line of the check; start-up files of an interpreter may print others."""
CHECK_SECONDS = 60.0
"""Seconds for an interpreter to answer."""
_MANAGED = "the node's own environment"
_NEEDED = ("pyarrow",)
"""Modules that every node needs."""
_INSTALLED = {"pyarrow": "pyarrow numpy"}
"""Packages to install for a missing module: `to_numpy` of pyarrow needs NumPy."""


class PythonUnusable(RunnerError):
    """No interpreter can run the node; the message has the remedy."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Command of a Python: the words before ``-u file``, and their origin."""

    words: tuple[str, ...]
    origin: str

    def __str__(self) -> str:
        return f"{' '.join(self.words)} ({self.origin})"


class PythonChooser:
    """Chooses and checks interpreters; a usable one is checked only once."""

    def __init__(self, *, own: str | None = None, uv: bool = False) -> None:
        self._own = sys.executable if own is None else own
        self._uv = uv
        self._usable: set[tuple[str, ...]] = set()

    def choose(
        self,
        managed: str | None,
        variables: Mapping[str, str],
        cwd: Path,
        needed: tuple[str, ...] = _NEEDED,
    ) -> Interpreter:
        """Return the interpreter for a node whose environment is ``variables``.

        Raises PythonUnusable if it is missing or lacks a ``needed`` module. Only the interpreter
        that runs dora is replaced by a better one on PATH.
        """
        problems = []
        for candidate in self._candidates(managed, variables):
            problem = self._problem(candidate, variables, cwd, needed)
            if problem is None:
                return candidate
            problems.append(problem)
        raise PythonUnusable(
            "; ".join(problems) or "no Python interpreter found: `python3` is not on PATH"
        )

    def _candidates(self, managed: str | None, variables: Mapping[str, str]) -> list[Interpreter]:
        """Return interpreters, the preferred one first."""
        if managed is not None:
            return [Interpreter((managed,), _MANAGED)]
        if self._uv:
            # a slow import, needed for uv only
            from dora_daemon.build.python_env import find_uv

            uv = find_uv(variables)
            if uv is None:
                raise PythonUnusable(
                    "--uv was given but `uv` is not on PATH; install uv or leave --uv out"
                )
            return [Interpreter((uv, "run", "python"), "uv run")]
        found = []
        if self._own and not getattr(sys, "frozen", False):
            found.append(Interpreter((self._own,), "the interpreter that runs dora"))
        for name in ("python3", "python"):
            path = shutil.which(name, path=variables.get("PATH"))
            if path is not None and path != self._own:
                found.append(Interpreter((path,), "found on PATH"))
        return found

    def _problem(
        self,
        interpreter: Interpreter,
        variables: Mapping[str, str],
        cwd: Path,
        needed: tuple[str, ...],
    ) -> str | None:
        # uv chooses by the directory; PYTHONPATH decides which modules can be imported
        place = str(cwd) if len(interpreter.words) > 1 else ""
        key = (*interpreter.words, place, variables.get("PYTHONPATH", ""), *needed)
        if key in self._usable:
            return None
        problem = _examine(interpreter, variables, cwd, needed)
        if problem is None:
            self._usable.add(key)
        return problem


def _examine(
    interpreter: Interpreter, variables: Mapping[str, str], cwd: Path, needed: tuple[str, ...]
) -> str | None:
    """Return why an interpreter cannot run nodes; None if it can."""
    if interpreter.words == (sys.executable,):
        # the interpreter of this process needs no subprocess
        version = sys.version_info[:2]
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
    else:
        try:
            done = subprocess.run(
                [*interpreter.words, "-c", _CHECK, *needed],
                cwd=cwd,
                env=dict(variables),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=CHECK_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"{interpreter} did not answer within {CHECK_SECONDS:g} s"
        except OSError as error:
            return f"{interpreter} cannot be run: {error}"
        facts = _FACTS.search(done.stdout)
        if done.returncode != 0 or facts is None:
            output = (done.stderr.strip() or done.stdout.strip()).splitlines()
            return f"{interpreter} does not work: {output[-1] if output else 'it printed nothing'}"
        version = (int(facts[1]), int(facts[2]))
        missing = facts[3].split()
    if version < OLDEST_PYTHON:
        return (
            f"{interpreter} is Python {version[0]}.{version[1]}, but nodes need"
            f" {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer; {_newer(interpreter)}"
        )
    if missing:
        return f"{interpreter} has no {missing[0]}; {_remedy(interpreter, missing[0], cwd)}"
    return None


def _newer(interpreter: Interpreter) -> str:
    oldest = f"{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]}"
    if interpreter.origin == _MANAGED:
        folder = Path(interpreter.words[0]).parent.parent
        return (
            f"remove {folder}, set the version in `.python-version` beside the node, if there is"
            f" one, to {oldest}, and build again"
        )
    if len(interpreter.words) > 1:
        return f"let the project that uv runs use a newer one: uv python pin {oldest}"
    return f"install a newer one, or make it the first on PATH: uv venv --python {oldest}"


def _remedy(interpreter: Interpreter, module: str, cwd: Path) -> str:
    name = module.replace("_", "-")
    library = wheel_source(name) if name.startswith("dora-") else _INSTALLED.get(name, name)
    if len(interpreter.words) > 1 and any(
        (folder / "pyproject.toml").exists() for folder in (cwd, *cwd.parents)
    ):
        return f"add it to the project that uv runs: uv add {library}"
    if interpreter.origin == _MANAGED or len(interpreter.words) > 1:
        # uv created it without pip, and builds may create it again; `uv add` needs a project
        return f"add a line `pip install {library}` to the node's `build`"
    return f"install it: {quote(interpreter.words[0])} -m pip install {library}"
