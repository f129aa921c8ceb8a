"""Fixtures of every test: an isolated home, a time limit, and a look at what was left behind."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.homes import watched_home
from support.workspace import Workspace

# A loaded machine is slow, not wrong: no deadline for an example, and no complaint about it.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    print_blob=True,
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# Where this is set, each of thousands of processes would compile all modules again, which would be
# most of what it does.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Workers of pytest-xdist ignore SIGINT, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

HAS_FAILED = pytest.StashKey[bool]()

WHOLE_DATAFLOWS = ("examples", "faults")
"""Folders whose tests all are integration tests; elsewhere a test carries the marker itself."""
LONGEST = ("cluster", "faults")
"""Folders of files that take minutes: they begin first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent

    def is_short(item: pytest.Item) -> tuple[bool, bool]:
        is_longest = item.path.relative_to(tests).parts[0] in LONGEST
        return not is_longest, item.get_closest_marker("integration") is None

    for item in items:
        if item.path.relative_to(tests).parts[0] in WHOLE_DATAFLOWS:
            item.add_marker(pytest.mark.integration)
    # Several processes take a file at a time: what is short fills up the end.
    items.sort(key=is_short)


def pytest_collection_finish() -> None:
    """What was collected stays. Looking through it would be most of the time of many tests, which
    collect garbage to see what they have left behind.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[HAS_FAILED] = True
    return report


@pytest.fixture(autouse=True)
def home(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A fresh HOME with a short name, set with all XDG folders; no dora setting is inherited.

    At the end nothing of the test may be left: no process, no shared memory, no runtime folder,
    no pipe, socket or memory file in the test process (but for what the traceback of a failure
    keeps alive). A module whose tests share what takes long has a `home` of its own.
    """
    with watched_home(lambda: HAS_FAILED in request.node.stash) as path:
        yield path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A folder to write nodes and dataflows in."""
    return Workspace(tmp_path)
