"""Files that a node runs: its programs, what they import, and files named in `args` and `env`."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.yaml.text_files import is_file

MAX_FILES = 2000
"""Files of one program after which no more imports are followed."""


def files_of(node: ResolvedNode, base: Path) -> frozenset[Path]:
    """Return the paths of a node's files; relative names start at ``base``, its working directory.

    For Python programs these include the modules that they import, at any depth, from their own
    folder, from ``base``, or by relative imports.
    """
    found: set[Path] = set()
    for program in _programs(node, base):
        found |= _with_imports(program, (program.parent, base))
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
