"""A fleet, `dora ui`, and a real browser; shared by the tests of a module."""

from support.browser.fixtures import browser, console, dataflow, fleet, ui

__all__ = ["browser", "console", "dataflow", "fleet", "ui"]
