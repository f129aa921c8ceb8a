"""A fleet of three daemons, `dora ui`, and a real browser; shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser.session import Ui, chromium, opened
from support.dora import running_dora
from support.fleets.daemons import RealFleet, real_fleet
from support.fleets.watched_fleet import MACHINES, watched
from support.workspace import Workspace

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SILENCE = "daemon_silence_limit=4s"


@pytest.fixture(scope="module")
def fleet(shared_home: Path, shared_workspace: Workspace) -> Iterator[RealFleet]:
    with real_fleet(shared_workspace, *MACHINES, settings=("--set", SILENCE)) as found:
        yield found


@pytest.fixture(scope="module")
def dataflow(fleet: RealFleet) -> str:
    """The UUID of the running dataflow."""
    return fleet.start(watched(fleet.workspace), "--name", "vision")


@pytest.fixture(scope="module")
def browser(shared_home: Path) -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def ui(fleet: RealFleet, browser: Browser) -> Iterator[Ui]:
    words = ("ui", "--no-browser", "--coordinator-port", str(fleet.port))
    with running_dora(*words, cwd=fleet.workspace.path) as process:
        yield opened(process, browser)
        process.interrupt()
        process.wait().succeeded()


@pytest.fixture
def console(ui: Ui) -> Iterator[None]:
    """Errors in the console fail the test."""
    ui.errors.clear()
    yield
    for page in ui.context.pages:
        page.close()
    assert ui.errors == []
