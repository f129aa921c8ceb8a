"""What a test needs of the machine: without it the test is skipped; in CI it fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

NO_SKIPS = "DORA_TESTS_NO_SKIPS"
"""Set by `.ci/run`, which installs all programs and runs as root."""


def require(met: object, need: str) -> None:
    """Skip the test unless a need is met; with ``NO_SKIPS`` fail it."""
    if met:
        return
    if os.environ.get(NO_SKIPS):
        pytest.fail(f"needs {need}")
    pytest.skip(f"needs {need}")


def require_installed(*names: str, path: str | None = None) -> None:
    """Require programs (on ``path``) or files."""
    absent = [
        name
        for name in names
        if not (Path(name).exists() if name.startswith("/") else shutil.which(name, path=path))
    ]
    require(not absent, f"{', '.join(absent)} (see .ci/run for the packages)")


def require_root() -> None:
    require(os.geteuid() == 0, "root")
