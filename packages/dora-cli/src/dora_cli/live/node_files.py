"""Files that a node runs: its programs, what they import, and files named in `args` and `env`.

A console script of a package runs the modules of that package.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.yaml.text_files import is_file
from dora_daemon.build.python_env import environment_python
from dora_daemon.runner.process.sources import SourceNotFound, find_program

MAX_FILES = 2000
"""Files of one program after which no more imports are followed."""
FIND_SECONDS = 30.0
"""Seconds for an interpreter to find packages."""
_PYTHON = re.compile(r"python[0-9.]*")
_FIND = """
import importlib.util, json, sys
places = []
for name in sys.argv[1:]:
    spec = importlib.util.find_spec(name)
    if spec is not None:
        places += spec.submodule_search_locations or [spec.origin]
print(json.dumps(places))
"""


def files_of(node: ResolvedNode, base: Path) -> frozenset[Path]:
    """Return the paths of a node's files; relative names start at ``base``, its working directory.

    For Python programs these include the modules that they import, at any depth, from their own
    folder, from ``base``, or by relative imports.
    """
    found: set[Path] = set()
    for program in _programs(node, base):
        found |= _with_imports(program, (program.parent, base))
    if node.kind == "standard" and node.path and not node.path.endswith(".py"):
        found |= _modules_of_packages(node.path, node.args, node.id, base)
    for text in (*node.args, *(one for one in node.env.values() if isinstance(one, str))):
        for word in {text, text.rpartition("=")[2]}:
            if word and "\0" not in word and is_file(base / word):
                found.add(base / word)
    links = {path.resolve() for path in found if path.is_symlink()}
    return frozenset(found | links)


def _programs(node: ResolvedNode, base: Path) -> Iterator[Path]:
    names = [operator.python for operator in node.operators]
    if node.kind == "standard" and node.path:
        names.append(node.path)
    for name in names:
        if is_file(base / name):
            yield Path(base / name)


def _modules_of_packages(path: str, args: Sequence[str], node: str, base: Path) -> set[Path]:
    """Return the modules of the packages that a console script, or `python -m`, runs."""
    program = _installed_program(path, node, base)
    if program is None:
        return set()
    if _PYTHON.fullmatch(program.name):
        names = {args[1].partition(".")[0]} if len(args) > 1 and args[0] == "-m" else set()
        interpreter: Path | None = program
    else:
        names = {name.partition(".")[0] for level, name in _imported(program) if not level}
        interpreter = _interpreter_of(program)
    names -= sys.stdlib_module_names
    found: set[Path] = set()
    for place in _locations(interpreter, names, base) if interpreter and names else ():
        found |= {place} if place.suffix == ".py" else {*place.rglob("*.py")}
        if len(found) > MAX_FILES:
            break
    return found


def _installed_program(path: str, node: str, base: Path) -> Path | None:
    for managed in (None, environment_python(base, node)):
        with suppress(SourceNotFound):
            return find_program(
                path,
                working_dir=base,
                variables=os.environ,
                managed_python=None if managed is None else str(managed),
            )
    return None


def _interpreter_of(script: Path) -> Path | None:
    """Return the interpreter in the first line of a script, or the one beside it."""
    with suppress(OSError), script.open("rb") as file:
        words = file.readline(4096).decode(errors="replace").removeprefix("#!").split()
        if words and _PYTHON.fullmatch(Path(words[0]).name):
            return Path(words[0])
    beside = script.with_name("python")
    return beside if beside.exists() else None


def _locations(interpreter: Path, names: Iterable[str], base: Path) -> list[Path]:
    """Return the folders and files of modules, without importing them."""
    words = [str(interpreter), "-P", "-c", _FIND, *sorted(names)]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run(
            words, cwd=base, stdin=subprocess.DEVNULL, capture_output=True, timeout=FIND_SECONDS,
            check=True,
        )  # fmt: skip
        return [Path(place) for place in json.loads(done.stdout) if place]
    return []


def _with_imports(program: Path, roots: tuple[Path, ...]) -> set[Path]:
    found, pending = {program}, [program]
    while pending and len(found) < MAX_FILES:
        path = pending.pop()
        if path.suffix != ".py":
            continue
        new = {one for name in _imported(path) for one in _modules(name, path, roots)} - found
        found |= new
        pending += new
    return found


def _imported(path: Path) -> list[tuple[int, str]]:
    """Return level and dotted name of each import; none of an unreadable or invalid file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the user's code; the node prints them itself
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    names: list[tuple[int, str]] = []
    for item in ast.walk(tree):
        if isinstance(item, ast.Import):
            names += [(0, alias.name) for alias in item.names]
        elif isinstance(item, ast.ImportFrom):
            prefix = f"{item.module}." if item.module else ""
            names += [(item.level, prefix + alias.name) for alias in item.names]
    return names


def _modules(name: tuple[int, str], importer: Path, roots: Iterable[Path]) -> Iterator[Path]:
    """Yield the files of a module and of the packages that contain it."""
    level, dotted = name
    if level:
        folder = importer.parent
        for _ in range(level - 1):
            folder = folder.parent
        roots = (folder,)
    for root in roots:
        folder = root
        for part in dotted.split("."):
            for candidate in (folder / f"{part}.py", folder / part / "__init__.py"):
                if is_file(candidate):
                    yield candidate
            folder = folder / part
