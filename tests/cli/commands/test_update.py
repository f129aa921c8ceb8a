"""`dora self`: instructions only, and the self-test."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from support.command_line import Dora
from support.dora import run_dora

from dora_cli._version import __version__

PYTHON = shlex.quote(sys.executable)


def test_update(dora: Dora) -> None:
    assert dora("self", "update").out == (
        f"dora {__version__}, installed for {sys.executable}\n"
        "install the new version from where it comes:\n"
        f"  in a newer checkout of dora:  {PYTHON} -m pip install packages/*\n"
        f"  from a folder of its wheels:  {PYTHON} -m pip install FOLDER/dora_*.whl\n"
    )
    assert dora("self", "update", "--check-only").code == 0


def test_uninstall(dora: Dora) -> None:
    shown = dora("self", "uninstall", "--force")
    assert shown.code == 0
    (line,) = [one for one in shown.out.splitlines() if "pip uninstall" in one]
    assert line.endswith(" dora-node-api dora-config")
    assert " dora-cli-core " in line


@pytest.mark.integration
def test_self_test_runs_dataflows_and_leaves_nothing(home: Path) -> None:
    before = set(home.rglob("*"))
    done = run_dora("self", "test", timeout=200).succeeded()
    assert done.stdout.startswith("dora ")
    assert " works, with " in done.stdout
    assert set(home.rglob("*")) == before
