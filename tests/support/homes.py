"""Isolated home directories for tests."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

import pytest
from support.leftovers import TAG, Before, runtime_files

KEPT_PREFIXES = ("DORA_TESTS_",)


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory with a short path: AF_UNIX paths end at 104 bytes, pytest's folders are long."""
    path = Path(tempfile.mkdtemp(prefix="d", dir="/tmp"))
    try:
        yield path
    finally:
        rmtree(path, ignore_errors=True)


def isolated_environment(home: Path, environ: dict[str, str]) -> dict[str, str]:
    """Return ``environ`` with HOME and XDG folders under ``home`` and without settings of dora.

    Package caches stay in place, so that tests that install packages are quick.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith("DORA_") or name.startswith(KEPT_PREFIXES)
    }
    real_cache = Path(environ.get("XDG_CACHE_HOME", Path(environ.get("HOME", "/tmp")) / ".cache"))
    for name in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "RUST_LOG", "FORCE_COLOR", "NO_COLOR"):
        kept.pop(name, None)
    kept.setdefault("UV_CACHE_DIR", str(real_cache / "uv"))
    kept.setdefault("PIP_CACHE_DIR", str(real_cache / "pip"))
    return kept | {
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "COLUMNS": "120",
        "LINES": "40",
        "TERM": "dumb",
        # The daemons of most tests live for seconds; a spare would only take processor time.
        "DORA_SPARE_RUNNER": "0",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.invalid",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.invalid",
    }


@contextmanager
def watched_home(has_failed: Callable[[], bool]) -> Iterator[Path]:
    """Set an isolated home in the environment; fail the test if anything is left at the end."""
    before = Before.now(uuid.uuid4().hex)
    with short_directory() as path, pytest.MonkeyPatch.context() as patch:
        environment = isolated_environment(path, dict(os.environ)) | {TAG: before.tag}
        for name in set(os.environ) - set(environment):
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        (path / "run").mkdir(mode=0o700)
        yield path
        left = before.end_processes()
        left += before.new_shared_memory() + runtime_files(path)
        if not has_failed():
            left += before.new_descriptors()
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)
