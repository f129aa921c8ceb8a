"""Sessions of nox; without ``-s``, those for every change.

lint, types, core (its tests without any plug-in), plugins (the tests of each one, with the core and
no other), together (examples and the repository), wheels (each one alone in an empty environment),
docs, demo (the README's first command). CI also runs fleet (faults, and hosts with systemd), lowest
(oldest allowed dependencies), ros2 (dora-ros2 beside rclpy and zenoh-ros2-sdk) and lerobot
(LeRobot's own scripts). By hand:
``slow``, tests that take minutes; ``pythons``, other interpreters; ``tests``, all tests in one
environment; ``unit``, the quick ones; ``bench``, the comparison with dora-rs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = [
    "lint",
    "types",
    "core",
    "plugins",
    "together",
    "wheels",
    "docs",
    "demo",
]

ROOT = Path(__file__).parent
WORKERS = str(max(4, os.cpu_count() or 1))
"""Parallel test processes; most tests wait for other processes."""
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
NEEDS: dict[str, list[str]] = json.loads(
    (ROOT / "packages/dora-config/src/dora_config/wheels.json").read_text()
)
"""Wheels with those that each one needs."""
CORE = [*NEEDS["dora-cli-core"], "dora-cli-core"]
PLUGINS = sorted(NEEDS.keys() - {*CORE, "dora-cli"})
ON_A_MAC = ["dora-config", "dora-coordinator", "dora-cli-core", "dora-cluster", "dora-ui"]
"""Wheels without nodes, which also work on an operator's Mac."""
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")


def _dependencies(group: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, group))


def _install(session: nox.Session, *groups: str, wheels: Sequence[str] = PACKAGES) -> None:
    """Packages, editable, and the tools of ``groups``."""
    # uv builds packages of its command line each time, those of a file only when they have changed.
    packages = Path(session.virtualenv.location) / "packages.txt"
    packages.write_text("".join(f"-e packages/{name}\n" for name in wheels))
    tools = sorted({tool for group in groups for tool in _dependencies(group)})
    session.install("-r", str(packages), *tools)


def _pytest(session: nox.Session, *arguments: str) -> None:
    # Tests of a file share fixtures, so they stay together. tests/conftest.py sorts the longest
    # files first; xdist would sort files by their number of tests.
    spread = ("-n", WORKERS, "--dist", "loadfile", "--no-loadscope-reorder")
    session.run("pytest", *spread, *arguments, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, lines of each sub-package; types of the page of `dora ui`."""
    session.install(*_dependencies("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("python", "scripts/source_lines.py")
    if not (shutil.which("npm") or os.environ.get("DORA_TESTS_NO_SKIPS")):
        session.warn("skipped the types of the page: needs npm (apt-get install npm)")
        return
    # The versions of package-lock.json, which also contains their checksums.
    session.run("python", "packages/dora-ui/frontend/vendor.py", "--check")
    with session.chdir("packages/dora-ui/frontend"):
        session.run("npm", "exec", "--offline", "--", "tsc", "-p", ".", external=True)


@nox.session
def types(session: nox.Session) -> None:
    """mypy in strict mode over the packages, the tests, the examples and the benchmarks."""
    _install(session, "types")
    everything = (
        *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("packages/*/src"))),
        *("tests", "examples", "benchmarks", "scripts", "docs/generate", "noxfile.py"),
    )
    names_that_macos_lacks = (
        *("--platform", "darwin", "--follow-imports", "silent"),
        *("--cache-dir", ".mypy_cache/darwin"),
        *(f"packages/{name}/src" for name in ON_A_MAC),
    )

    def check(words: Sequence[str]) -> object:
        return session.run("mypy", *words, silent=True)

    # mypy uses one processor.
    with ThreadPoolExecutor() as pool:
        for printed in pool.map(check, (everything, names_that_macos_lacks)):
            session.log(str(printed).strip())


def _folders(session: nox.Session, *names: str) -> list[str]:
    """Return the folders of tests, unless the command line names some."""
    if any(argument.startswith("tests") for argument in session.posargs):
        return []
    return [f"tests/{name.removeprefix('dora-').replace('-', '_')}" for name in names]


@nox.session
def core(session: nox.Session) -> None:
    """The tests of the core, where no plug-in is installed."""
    _install(session, "test", wheels=CORE)
    names = ("cli", "conformance", *(name for name in CORE if name != "dora-cli-core"))
    _pytest(session, "-m", "not slow and not ros", *_folders(session, *names))


@nox.session
@nox.parametrize("plugin", PLUGINS)
def plugins(session: nox.Session, plugin: str) -> None:
    """The tests of a plug-in, with the core and what it declares."""
    project = nox.project.load_toml(ROOT / "packages" / plugin / "pyproject.toml")["project"]
    optional = chain.from_iterable(project.get("optional-dependencies", {}).values())
    others = {line.partition("==")[0] for line in (*optional, *NEEDS[plugin])} & set(PLUGINS)
    _install(session, "test", wheels=[*CORE, plugin, *others])
    if plugin == "dora-ui":
        session.install(*_dependencies("viewers"))
    _pytest(session, "-m", "not slow and not ros", *_folders(session, plugin))


@nox.session
def together(session: nox.Session) -> None:
    """The tests that use several plug-ins, and those of the repository itself."""
    _install(session, "test", "viewers")
    names = ("together", "examples", "repository", "benchmarks")
    _pytest(session, "-m", "not slow and not ros", *_folders(session, *names))


@nox.session
def fleet(session: nox.Session) -> None:
    """Faults, and clusters of hosts with a real systemd and sshd."""
    _install(session, "test")
    _pytest(session, "-m", "not slow and not ros", *_folders(session, "faults", "fleet"))


@nox.session
def tests(session: nox.Session) -> None:
    """All tests but those that take minutes."""
    _install(session, "test", "viewers")
    _pytest(session, "-m", "not slow and not ros")


@nox.session
def slow(session: nox.Session) -> None:
    """Random histories, and commands of `dora cluster` that are cut off at each step."""
    _install(session, "test")
    _pytest(session, "-m", "slow")


@nox.session
def unit(session: nox.Session) -> None:
    """All tests except those marked integration, slow or ros."""
    _install(session, "test")
    _pytest(session, "-m", "not (integration or slow or ros)")


@nox.session(venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Unit tests and a few others with the oldest dependencies that the packages allow."""
    packages = [argument for name in PACKAGES for argument in ("-e", f"packages/{name}")]
    session.install("--resolution", "lowest-direct", *packages)
    # Only the packages' own dependencies are old, not the tools.
    session.install(*_dependencies("test"))
    # These check files and decisions, independent of the dependencies.
    folders = ("repository", "benchmarks", "conformance", "gate", "coordinator/test_*")
    apart = [f"--ignore-glob=tests/{name}" for name in folders]
    _pytest(session, "-q", "-m", "(not integration or dependencies) and not (ros or slow)", *apart)


@nox.session(python=["3.12", "3.13", "3.14"])
def pythons(session: nox.Session) -> None:
    """The tests without whole dataflows on the other interpreters that are installed."""
    _install(session, "test", "viewers")
    _pytest(session, "-q", "-m", "not (integration or slow or ros)")


@nox.session
def wheels(session: nox.Session) -> None:
    """Build wheel and sdist of each package; install and check each alone."""
    session.install("uv", "packaging", "hatchling")
    dist = Path(session.create_tmp()) / "dist"
    session.run("python", "scripts/wheels.py", str(dist), *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Check that generated pages are up to date; build the documentation without warnings."""
    _install(session, "docs", "test")
    session.run("python", "docs/generate", "--check")
    site = f"{session.create_tmp()}/site"
    quiet = {"NO_MKDOCS_2_WARNING": "1"}
    session.run("mkdocs", "build", "--strict", "--site-dir", site, env=quiet)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the README's first command in a copy of the repository."""
    session.run(sys.executable, "scripts/demo.py", external=True)


@nox.session(venv_backend="uv")
def ros2(session: nox.Session) -> None:
    """dora-ros2 over Zenoh and DDS, beside rclpy of two distributions and zenoh-ros2-sdk."""
    _install(session, "test")
    session.install("-e", "packages/dora-ros2[dds]")
    # One after the other: discovery takes long beside other tests.
    session.run("pytest", "-q", "-m", "ros", "tests/ros2", *session.posargs)
    for group, variable, tests in (
        ("rclpy-kilted", "DORA_TESTS_RCLPY", "tests/ros2/oracle"),
        ("rclpy-jazzy", "DORA_TESTS_RCLPY", "tests/ros2/oracle"),
        ("zenoh-sdk", "DORA_TESTS_ZENOH_SDK", "tests/ros2/interop"),
    ):
        folder = Path(session.create_tmp()).resolve() / group
        python = str(folder / "bin" / "python")
        if not folder.exists():
            # the wheels of ROS are for CPython 3.10 to 3.13 on x86_64
            create = ("uv", "venv", "--quiet", "--python", sys.executable, str(folder))
            session.run(*create, external=True)
        install = ("uv", "pip", "install", "--quiet", "--python", python, *_dependencies(group))
        session.run(*install, external=True)
        session.run("pytest", "-q", tests, *session.posargs, env={variable: python})


@nox.session(venv_backend="uv")
def lerobot(session: nox.Session) -> None:
    """The scripts of LeRobot and its policies, in an environment with Debian's PyTorch."""
    # That of the index for x86_64 is with CUDA: 2.7 GB.
    system = "/usr/bin/python3"
    check = "import sys, torch, torchvision; sys.exit(sys.version_info < (3, 12))"
    if subprocess.run([system, "-c", check], capture_output=True, check=False).returncode:
        needs = "needs Debian 13: apt-get install python3-torch python3-torchvision"
        if os.environ.get("DORA_TESTS_NO_SKIPS"):
            session.error(needs)
        session.skip(needs)
    _install(session, "test")
    folder = Path(session.create_tmp()).resolve() / "lerobot"
    python = str(folder / "bin" / "python")
    if not folder.exists():
        create = ("uv", "venv", "--quiet", "--system-site-packages", "--python", system)
        session.run(*create, str(folder), external=True)
    install = ("uv", "pip", "install", "--quiet", "--python", python)
    # They ask for a newer PyTorch and for that of the index, which they do not need here.
    session.run(*install, "--no-deps", "lerobot==0.6.1", "accelerate<2", external=True)
    wheels = [*CORE, "dora-gate", "dora-recordings", "lerobot-robot-dora"]
    packages = [argument for name in wheels for argument in ("-e", f"packages/{name}")]
    session.run(*install, *packages, *_dependencies("lerobot"), external=True)
    tests = ("tests/with_lerobot", *session.posargs)
    session.run("pytest", "-q", *tests, env={"DORA_TESTS_LEROBOT": python})


@nox.session
def bench(session: nox.Session) -> None:
    """Comparison with dora-rs, installed in an environment of its own."""
    _install(session, "test")
    session.run("python", "benchmarks/compare.py", *session.posargs)


if os.environ.get("CI"):
    nox.options.error_on_missing_interpreters = False
