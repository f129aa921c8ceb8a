"""Programs and files that a test needs: without them it is skipped, but fails in CI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def require_installed(*names: str, path: str | None = None) -> None:
    """Skip the test without these programs (on ``path``) or files; `.ci/run` installs them all."""
    absent = [
        name
        for name in names
        if not (Path(name).exists() if name.startswith("/") else shutil.which(name, path=path))
    ]
    if not absent:
        return
    reason = f"needs {', '.join(absent)} (see .ci/run for the packages)"
    if os.environ.get("DORA_TESTS_ALL_INSTALLED"):
        pytest.fail(reason)
    pytest.skip(reason)
