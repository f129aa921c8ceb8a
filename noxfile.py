"""What is checked, and how: plain ``nox`` runs what CI runs.

lint, types, tests, lowest (oldest allowed dependencies), wheels (each one alone in an empty
environment), docs, demo (the README's first command). Not part of CI: ``nox -s unit``, the quick
ones of the tests; ``nox -s bench`` compares with the peer; ``nox -s pythons`` runs the tests on
other interpreters.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = [
    "lint",
    "types",
    "tests",
    "lowest",
    "wheels",
    "docs",
    "demo",
]

ROOT = Path(__file__).parent
WORKERS = str(max(4, os.cpu_count() or 1))
"""Processes that run tests at a time: most tests wait for processes of theirs."""
PACKAGES = ["dora-config", "dora-node-api", "dora-coordinator", "dora-daemon", "dora-cli"]
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")


def _dependencies(group: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, group))


def _install(session: nox.Session, *groups: str) -> None:
    """The five packages, editable, and the tools of ``groups``."""
    packages = [argument for name in PACKAGES for argument in ("-e", f"packages/{name}")]
    tools = sorted({tool for group in groups for tool in _dependencies(group)})
    session.install(*packages, *tools)


def _pytest(session: nox.Session, *arguments: str) -> None:
    # Those of a file stay together: they share what takes long. In the order of tests/conftest.py
    # the longest files begin first; by the number of their tests they would come last.
    spread = ("-n", WORKERS, "--dist", "loadfile", "--no-loadscope-reorder")
    session.run("pytest", *spread, *arguments, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, import direction, purity of the modules that decide, sizes and names."""
    session.install(*_dependencies("lint"), *_dependencies("test"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run(
        "pytest", "-q", "tests/repository/test_layout.py", "tests/repository/test_packages.py"
    )


@nox.session
def types(session: nox.Session) -> None:
    """mypy in strict mode over the packages, the tests, the examples and the benchmarks."""
    _install(session, "types")
    session.run(
        "mypy",
        *(f"packages/{name}/src" for name in PACKAGES),
        *("tests", "examples", "benchmarks", "scripts", "docs/generate", "noxfile.py"),
    )


@nox.session
def tests(session: nox.Session) -> None:
    """All tests: whole dataflows with real processes, files and faults, and what is below them."""
    _install(session, "test")
    _pytest(session)


@nox.session
def unit(session: nox.Session) -> None:
    """All tests but those of whole dataflows."""
    _install(session, "test")
    _pytest(session, "-m", "not integration")


@nox.session(venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """The tests once more, with the oldest versions that the packages claim to work with."""
    packages = [argument for name in PACKAGES for argument in ("-e", f"packages/{name}")]
    session.install("--resolution", "lowest-direct", *packages)
    # Only the packages' own dependencies are old; the tools are not what is tested here.
    session.install(*_dependencies("test"))
    # What looks at the files of the repository does so with any version.
    apart = ("--ignore", "tests/repository", "--ignore", "tests/benchmarks")
    _pytest(session, "-q", "-m", "not integration", *apart)


@nox.session(python=["3.12", "3.13", "3.14"])
def pythons(session: nox.Session) -> None:
    """The tests on the other interpreters that are supported (those that the machine has)."""
    _install(session, "test")
    _pytest(session, "-q")


@nox.session
def wheels(session: nox.Session) -> None:
    """Build wheel and sdist of each package; install each alone and have it do its job."""
    session.install("uv", "packaging")
    dist = Path(session.create_tmp()) / "dist"
    session.run("python", "scripts/wheels.py", str(dist), *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Generated reference pages are up to date, and the documentation builds without a warning."""
    _install(session, "docs", "test")
    session.run("python", "docs/generate", "--check")
    site = f"{session.create_tmp()}/site"
    quiet = {"NO_MKDOCS_2_WARNING": "1"}
    session.run("mkdocs", "build", "--strict", "--site-dir", site, env=quiet)


@nox.session
def demo(session: nox.Session) -> None:
    """The README's first command, word by word, in a copy of the repository."""
    session.run(sys.executable, "scripts/demo.py", external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Side by side with the peer, which is installed in an environment of its own."""
    _install(session, "test")
    session.run("python", "benchmarks/compare.py", *session.posargs)


if os.environ.get("CI"):
    nox.options.error_on_missing_interpreters = False
