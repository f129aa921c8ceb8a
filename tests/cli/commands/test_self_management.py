"""`dora self`: says what to do, and does nothing."""

from __future__ import annotations

import sys

from cli.conftest import Dora

from dora_cli._version import __version__


def test_update(dora: Dora) -> None:
    assert dora("self", "update").out == (
        f"dora {__version__}, installed for {sys.executable}\n"
        "dora is a Python package: the tool that installed it updates it\n"
        f"  pip:  {sys.executable} -m pip install --upgrade dora-cli\n"
        "  uv:   uv tool upgrade dora-cli\n"
        "  pipx: pipx upgrade dora-cli\n"
    )
    assert dora("self", "update", "--check-only").code == 0


def test_uninstall(dora: Dora) -> None:
    shown = dora("self", "uninstall", "--force")
    assert shown.code == 0
    assert "pip uninstall dora-cli dora-coordinator" in shown.out
