"""The log of a coordinator or daemon on standard error."""

from __future__ import annotations

import logging
import sys

from dora_config.terminal import visible


class _VisibleText(logging.Formatter):
    """Escapes control characters, which names and errors of other machines may contain."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def log_to_stderr(*, quiet: bool) -> None:
    """Write log records to standard error; ``quiet``: only warnings and errors."""
    handler = logging.StreamHandler(sys.stderr)
    layout = "%(asctime)s %(levelname)-7s %(message)s"
    handler.setFormatter(_VisibleText(layout, datefmt="%Y-%m-%dT%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, handlers=[handler])
