"""Conditions on the page that tests wait for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

PATIENCE_MS = 20_000
"""Deadline of a condition on the page."""


def see(page: Page, selector: str, text: str | re.Pattern[str] = "") -> Locator:
    """Wait until an element with a text is visible."""
    found = page.locator(selector).filter(has_text=text).first
    found.wait_for(timeout=PATIENCE_MS)
    return found


def node(page: Page, name: str, status: str = "Running") -> Locator:
    """Wait until the graph shows a node in this state."""
    return see(page, f'[data-node="{name}"][data-status="{status}"]')
