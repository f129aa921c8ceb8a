"""Fixtures of every test: an isolated home, checked for leftovers."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.command_line import dora
from support.entry_points import out_of_date
from support.homes import watched_home
from support.requirements import summary
from support.workspace import Workspace
from xdist.scheduler import LoadFileScheduling

__all__ = ["dora"]

# Examples have no deadline: a busy machine is slow, not wrong.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    print_blob=True,
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# With this variable, each of thousands of processes would compile all modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Workers of pytest-xdist ignore SIGINT, which their child processes would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Collection allocates much and frees little.
gc.disable()

HAS_FAILED = pytest.StashKey[bool]()

WHOLE_DATAFLOWS = ("examples", "faults", "with_lerobot")
"""Folders with integration tests only; elsewhere tests have the marker."""
LONGEST = (
    *("fleet/", "faults/", "together/", "examples/test_plugin.py", "ui/test_browser"),
    *("cluster/bundle/test_whole_installation.py", "cluster/operations/test_background"),
    *("cluster/bundle/test_install.py", "repository/test_docs.py", "testing/test_ci_examples.py"),
    *("testing/test_replay_check", "testing/test_repetition.py"),
    *("recordings/commands/test_record.py", "daemon/agent/fleet/", "daemon/link/"),
)
"""Beginnings of files that take long and therefore start first."""
SPREAD = frozenset(
    f"tests/{name}"
    for name in (
        "cluster/fleets/test_fleet_file.py",
        "daemon/agent/fleet/test_alone.py",
        "daemon/agent/fleet/test_compromised_robot.py",
        "daemon/agent/fleet/test_linked_fleet.py",
        "daemon/agent/fleet/test_mute_runners.py",
        "daemon/link/test_link_faults.py",
        "daemon/runner/link/test_link_faults.py",
        "recordings/commands/test_record.py",
        "repository/test_docs.py",
    )
)
"""Files with long tests that share nothing: workers take single tests of them."""
SOURCES = frozenset(
    f"tests/repository/test_{name}.py"
    for name in ("install_lines", "layout", "reference", "structure", "terminal_output")
)
"""Files that parse all sources: one worker takes all of them, and parses each source once."""


def pytest_sessionstart() -> None:
    if wheels := out_of_date():
        again = " ".join(f"-e packages/{wheel}" for wheel in wheels)
        raise pytest.UsageError(f"entry points have changed; run: uv pip install {again}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent

    def is_short(item: pytest.Item) -> tuple[bool, bool]:
        name = item.path.relative_to(tests).as_posix()
        unmarked = item.get_closest_marker("integration") is None and f"tests/{name}" not in SOURCES
        return unmarked or not name.startswith(LONGEST), unmarked

    for item in items:
        if item.path.relative_to(tests).parts[0] in WHOLE_DATAFLOWS:
            item.add_marker(pytest.mark.integration)
    # Workers take one file at a time; short ones balance the load at the end.
    items.sort(key=is_short)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Let workers of pytest-xdist take files, single tests of `SPREAD`, or all of `SOURCES`."""

    def unit(nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in SPREAD:
            return nodeid
        return "sources" if file in SOURCES else file

    if config.option.dist != "loadfile":
        return None
    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = unit
    return scheduler


def pytest_collection_finish() -> None:
    """Exempt the collected tests from garbage collection, which many tests run to find leaks."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[HAS_FAILED] = True
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the machine lacks for the tests that were skipped, and how to install it."""
    skipped = terminalreporter.stats.get("skipped", [])
    lines = summary(report.longrepr[2] for report in skipped)
    if lines:
        terminalreporter.section("skipped")
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def home(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A fresh HOME with all XDG folders and without settings of dora.

    Fails the test if it leaves a process, shared memory, a runtime directory, or (unless it has
    failed) a pipe, socket or memory file of the test process. Modules whose tests share processes
    override it with ``shared_home``.
    """
    with watched_home(lambda: HAS_FAILED in request.node.stash) as path:
        yield path


@pytest.fixture(scope="module")
def shared_home() -> Iterator[Path]:
    """A home for all tests of a module, checked for leftovers like that of a single test."""
    with watched_home(lambda: False) as path:
        yield path


@pytest.fixture(scope="module")
def shared_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace for all tests of a module."""
    return Workspace(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def own_home(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A home within the shared one, for a test that uses nothing that the others share."""
    with watched_home(lambda: HAS_FAILED in request.node.stash) as path:
        yield path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A folder for nodes and dataflow files."""
    return Workspace(tmp_path)
