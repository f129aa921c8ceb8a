"""Tests of the examples with dora-testing, as a user runs them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from examples.conftest import CopyExample


@pytest.mark.parametrize("name", ["two_cameras"])
def test_the_test_of_an_example(name: str, copy_example: CopyExample) -> None:
    folder = copy_example(name).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:anyio", folder],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
