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


@pytest.mark.integration
def test_the_tutorial(tmp_path: Path) -> None:
    script = "".join(SHELL.findall(PAGE.read_text()))
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", script],
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
        env={**os.environ, "PATH": programs},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    taught, trained, driven = re.split(r"(trained with .*)", done.stdout)
    assert taught.count("arm: reached ball") > 10
    error = re.search(r"mean error (.*) degrees", trained)
    assert error is not None
    assert float(error[1]) < 2.5
    assert driven.count("arm: reached ball") >= 3
