"""The lock options are checked together."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from dora_cli.build.local import LockChoice


def test_locked_and_write_lockfile_contradict_each_other() -> None:
    with pytest.raises(typer.BadParameter, match="cannot be used together"):
        LockChoice.from_options(locked=True, write=True, path=None)


def test_a_path_without_effect_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    LockChoice.from_options(locked=True, write=False, path=Path("x"))
    assert capsys.readouterr().err == ""
    LockChoice.from_options(locked=False, write=False, path=Path("x"))
    assert "--lockfile has no effect" in capsys.readouterr().err
