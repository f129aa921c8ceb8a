"""A page of `dora ui` in a real browser."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from support.dora import RunningDora
from support.requirements import require_installed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

CHROMIUM = "chromium"
# Each page is a window with an address bar, whose list is two more pages, even without a screen.
# The flag replaces Playwright's list of features, which these pages do not need.
_WITHOUT = ("WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "AimEnabled")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--disable-features={','.join(_WITHOUT)}",
)
SCREENSHOTS = "DORA_TESTS_SCREENSHOTS"
"""Folder in which tests save pictures of the views, for the documentation."""


@dataclass
class Ui:
    """A running `dora ui`, and a session of the browser with it."""

    process: RunningDora
    context: BrowserContext
    link: str
    address: str
    """Of the page, without the view."""
    errors: list[str] = field(default_factory=list)
    """Errors in the console of any page."""

    @property
    def origin(self) -> str:
        return self.link.partition("/?")[0]

    def open(self, *words: str) -> Page:
        """Open a view in a new page."""

        def logged(message: ConsoleMessage) -> None:
            if message.type == "error":
                self.errors.append(message.text)

        page = self.context.new_page()
        page.on("console", logged)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"{self.address}#/{'/'.join(words)}")
        return page


@contextmanager
def chromium() -> Iterator[Browser]:
    require_installed(CHROMIUM)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which(CHROMIUM)
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def opened(process: RunningDora, browser: Browser) -> Ui:
    """Use the printed link in a new session of the browser."""
    process.wait_for("dora ui: ")
    found = re.search(r"dora ui: (\S+)", process.stderr)
    assert found is not None
    context = browser.new_context(viewport={"width": 1360, "height": 850})
    page = context.new_page()
    page.goto(found[1])
    page.wait_for_selector("h1")
    ui = Ui(process, context, found[1], page.url.partition("#")[0])
    page.close()
    return ui


def screenshot(page: Page, name: str) -> None:
    """Save a picture if the environment names a folder for it."""
    folder = os.environ.get(SCREENSHOTS)
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")
