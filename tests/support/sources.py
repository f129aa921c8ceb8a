"""Source files of the project, for the tests in tests/repository."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = {
    path.parent.name: tuple(sorted(one.parent.name for one in path.parent.glob("src/*/py.typed")))
    for path in sorted(ROOT.glob("packages/*/pyproject.toml"))
}
"""Wheels and their import packages; dora-cli has none."""

CORE = ("dora-config", "dora-node-api", "dora-coordinator", "dora-daemon", "dora-cli-core")
"""Wheels of the core.

The messages about recordings and their way through the coordinator are part of it: the machines of
a cluster and its coordinator need not have the same plug-ins.
"""

PLUGINS: Mapping[str, tuple[str, ...]] = {
    wheel: packages for wheel, packages in PACKAGES.items() if packages and wheel not in CORE
}
"""Wheels of plug-ins and their import packages."""


@dataclass(frozen=True)
class Source:
    """One Python file of the project."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def name(self) -> str:
        """Path relative to the repository's root."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module(self) -> str:
        """Dotted name of a packaged module, for example ``dora_daemon.runner.machine.state``."""
        parts = self.path.relative_to(ROOT).parts
        dotted = ".".join(parts[parts.index("src") + 1 :]).removesuffix(".py")
        return dotted.removesuffix(".__init__")

    @property
    def wheel(self) -> str:
        """Return the wheel of a packaged module."""
        return self.path.relative_to(ROOT / "packages").parts[0]

    @property
    def plugin(self) -> str | None:
        """Return the plug-in that the module belongs to, None for the core."""
        return self.wheel if self.wheel in PLUGINS else None

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def docstring(self) -> str:
        return ast.get_docstring(self.tree) or ""

    def imports(self, *, at_run_time: bool = True) -> Iterator[tuple[int, str]]:
        """Line and absolute dotted name of each import; those under TYPE_CHECKING on request."""
        for node in _walk(self.tree, skip_type_checking=at_run_time):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    package = self.module.split(".")
                    if self.path.name != "__init__.py":
                        package.pop()
                    package = package[: len(package) - node.level + 1]
                    base = ".".join([*package, base] if base else package)
                yield node.lineno, base
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _walk(tree: ast.AST, *, skip_type_checking: bool) -> Iterator[ast.AST]:
    yield tree
    for child in ast.iter_child_nodes(tree):
        guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if not (guarded and skip_type_checking):
            yield from _walk(child, skip_type_checking=skip_type_checking)


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return the files that git tracks, and new ones that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    return tuple(ROOT / name for name in listed if name and (ROOT / name).is_file())


@cache
def python_sources(folder: str = "") -> tuple[Source, ...]:
    """Return the Python files under ``folder``, relative to the root ("": all)."""
    return tuple(
        Source(path)
        for path in tracked_files()
        if path.suffix == ".py" and path.is_relative_to(ROOT / folder)
    )


@cache
def packaged_sources() -> tuple[Source, ...]:
    """Return the modules of all wheels."""
    return tuple(source for source in python_sources("packages") if "/src/" in source.name)
