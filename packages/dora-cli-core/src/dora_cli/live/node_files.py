"""Files that a node runs: its programs, what they import, and files named in `args` and `env`.

A console script or `python -m` has as files the modules that it imports, at any depth, from its own
package and from packages outside of site-packages.
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
_INTERPRETER_NAME = re.compile(r"python[0-9.]*")
_FIND_SCRIPT = """
import importlib.util, json, sys
places = {}
for name in sys.argv[1:]:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        continue
    if spec is not None:
        places[name] = [*(spec.submodule_search_locations or [spec.origin])]
print(json.dumps(places))
"""
_INSTALLED_FOLDERS = frozenset(("site-packages", "dist-packages"))
_OWN_PACKAGES = frozenset(("dora", "dora_node_api"))
_COMPILE_SCRIPT = "import sys; compile(open(sys.argv[1], 'rb').read(), sys.argv[1], 'exec')"


def files_of(node: ResolvedNode, base: Path) -> frozenset[Path]:
    """Return the paths of a node's files; relative names start at ``base``, its working directory.

    For Python programs these include the modules that they import, at any depth, from their own
    folder, from ``base``, or by relative imports.
    """
    found: set[Path] = set()
    for program in (base / name for name in node.programs):
        if is_file(program):
            found |= _with_imports(program, (program.parent, base))
    if node.kind == "standard" and node.path and not node.path.endswith(".py"):
        found |= _modules_of_packages(node.path, node.args, node.id, base)
    for text in (*node.args, *(one for one in node.env.values() if isinstance(one, str))):
        for word in {text, text.rpartition("=")[2]}:
            if word and "\0" not in word and is_file(base / word):
                found.add(base / word)
    links = {path.resolve() for path in found if path.is_symlink()}
    return frozenset(found | links)


def _modules_of_packages(path: str, args: Sequence[str], node: str, base: Path) -> set[Path]:
    """Return the modules that a console script, or `python -m`, imports from packages."""
    program = _installed_program(path, node, base)
    if program is None:
        return set()
    if _INTERPRETER_NAME.fullmatch(program.name):
        module = args[1] if len(args) > 1 and args[0] == "-m" else ""
        names = [module, f"{module}.__main__"] if module else []
        return _in_packages(names, program, base)
    interpreter = _interpreter_of(program)
    names = [name for level, name in _imported(program) if not level]
    return set() if interpreter is None else _in_packages(names, interpreter, base)


def _in_packages(names: Sequence[str], interpreter: Path, base: Path) -> set[Path]:
    """Return modules and what they import, at any depth.

    Of packages in site-packages only those of ``names`` are followed; others rarely change.
    """
    own = {_top(name) for name in names}
    roots: dict[str, list[Path]] = {one: [] for one in (*sys.stdlib_module_names, *_OWN_PACKAGES)}
    found: set[Path] = set()
    pending: list[tuple[tuple[int, str], Path]] = [((0, name), base) for name in names]
    while pending and len(found) < MAX_FILES:
        tops = {_top(name) for (level, name), _ in pending if not level} - roots.keys()
        located = _locations(interpreter, tops, base) if tops else {}
        for top in tops:
            places = [Path(place) for place in located.get(top, ()) if place]
            roots[top] = [
                place.parent
                for place in places
                if top in own or not _INSTALLED_FOLDERS & {*place.parts}
            ]
        new = {
            path
            for name, importer in pending
            for path in _modules(name, importer, roots.get(_top(name[1]), []))
        } - found
        found |= new
        pending = [(name, path) for path in new for name in _imported(path)]
    return found


def _top(name: str) -> str:
    return name.partition(".")[0]


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
        if words and _INTERPRETER_NAME.fullmatch(Path(words[0]).name):
            return Path(words[0])
    beside = script.with_name("python")
    return beside if beside.exists() else None


def _locations(interpreter: Path, names: Iterable[str], base: Path) -> dict[str, list[str | None]]:
    """Return the folders and files of modules by name, without importing them."""
    words = [str(interpreter), "-P", "-c", _FIND_SCRIPT, *sorted(names)]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run(
            words, cwd=base, stdin=subprocess.DEVNULL, capture_output=True, timeout=FIND_SECONDS,
            check=True,
        )  # fmt: skip
        found: dict[str, list[str | None]] = json.loads(done.stdout)
        return found
    return {}


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
        elif isinstance(item, ast.Call):
            names += _imported_by_call(item)
    return names


def _imported_by_call(call: ast.Call) -> list[tuple[int, str]]:
    """Return the name in `import_module("package.module")`, if it is written there."""
    match call:
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
            args=[ast.Constant(value=str(name))],
        ) if name and not name.startswith("."):
            return [(0, name)]
    return []


def syntax_problem(path: Path, nodes: Iterable[tuple[ResolvedNode, Path]]) -> str | None:
    """Return line and message of a syntax error in a Python file, None without one.

    An interpreter of ``nodes``, each with its working directory, may accept newer syntax than the
    interpreter of this process.
    """
    if path.suffix != ".py":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        found = f"{error.lineno}: {error.msg}" if error.lineno else f" {error.msg}"
    except (OSError, ValueError, RecursionError, MemoryError):
        return None
    else:
        return None
    others = {one for node in nodes if (one := _own_interpreter(*node)) is not None}
    return None if any(_accepts(interpreter, path) for interpreter in others) else found


def _own_interpreter(node: ResolvedNode, base: Path) -> Path | None:
    """Return the interpreter of a node's environment or console script, if it is known."""
    if (managed := environment_python(base, node.id)) is not None or not node.path:
        return managed
    program = None if node.path.endswith(".py") else _installed_program(node.path, node.id, base)
    if program is None or _INTERPRETER_NAME.fullmatch(program.name):
        return program
    return _interpreter_of(program)


def _accepts(interpreter: Path, path: Path) -> bool:
    with suppress(OSError, subprocess.SubprocessError):
        words = [str(interpreter), "-P", "-c", _COMPILE_SCRIPT, str(path)]
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=FIND_SECONDS
        )
        return done.returncode == 0
    return False


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
