"""The tutorial about LeRobot: a project of `dora new --kind lerobot` teaches, trains and drives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/tutorial/lerobot.md"
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def printed(script: str, folder: Path) -> str:
    """Return what a shell script prints."""
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", script],
        stdin=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, "PATH": programs},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.integration
def test_the_test_of_the_project(tmp_path: Path) -> None:
    assert "2 passed" in printed("dora new reach --kind lerobot; cd reach; dora test", tmp_path)


@pytest.mark.integration
def test_the_tutorial(tmp_path: Path) -> None:
    out = printed("".join(SHELL.findall(PAGE.read_text())), tmp_path)
    taught, trained, driven = re.split(r"(trained with .*)", out)
    assert taught.count("arm: reached ball") > 10
    error = re.search(r"mean error (.*) degrees", trained)
    assert error is not None
    assert float(error[1]) < 2.5
    assert driven.count("arm: reached ball") >= 3
