"""This machine as a connection: its commands, its files, and errors without root rights."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dora_cluster.errors import RemoteTimeout, SudoUnavailable
from dora_cluster.machines.local_connection import LocalConnection


def test_commands_and_files(home: Path) -> None:
    with LocalConnection() as here:
        assert here.script("pwd").strip() == str(home)
        assert here.run(["sh", "-c", "cat; exit 3"], stdin=b"text").code == 3
        assert here.run(["not-a-command"]).code == 127
        place = str(home / "file")
        assert here.read(place) is None
        here.write(place, b"content", mode=0o600)
        assert here.read(place) == b"content"
        assert Path(place).stat().st_mode & 0o777 == 0o600
        python = here.script("command -v python3").strip()
        assert Path(python).parent == Path(sys.executable).parent
        with pytest.raises(RemoteTimeout):
            here.run(["sleep", "60"], timeout=0.05)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("echo 'sudo: a password is required' >&2; exit 1", "sudo requires a password"),
        (None, "sudo is not installed"),
    ],
)
def test_error_without_root_rights(
    home: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, reason: str
) -> None:
    """``program``: what `sudo` does."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "executable", str(home / "bin/python"))
    monkeypatch.setenv("PATH", str(home / "bin"))
    (home / "bin").mkdir()
    for name in ("env", "id"):
        (home / "bin" / name).symlink_to(f"/usr/bin/{name}")
    if program is not None:
        sudo = home / "bin/sudo"
        sudo.write_text(f"#!/bin/sh\n{program}\n")
        sudo.chmod(0o755)
    with pytest.raises(SudoUnavailable, match=reason) as problem:
        LocalConnection().check(["/bin/true"], sudo=True)
    assert "run `sudo -v` in this terminal and then this command again" in str(problem.value)


def test_a_missing_home_is_not_reported_as_a_missing_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    with LocalConnection() as here, pytest.raises(FileNotFoundError, match="missing"):
        here.run(["id"])
