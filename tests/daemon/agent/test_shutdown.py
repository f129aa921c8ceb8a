"""Shutdown of a machine, as reported by different init systems."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from dora_daemon.command import system_is_stopping


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ({"systemctl": "echo stopping; exit 1"}, True),
        ({"systemctl": "echo running"}, False),
        ({"systemctl": "echo degraded; exit 1"}, False),
        ({"systemctl": "echo offline; exit 1", "runlevel": "echo N 6"}, False),
        ({"systemctl": "exit 1", "runlevel": "echo N 6"}, True),
        ({"runlevel": "echo 2 0"}, True),
        ({"runlevel": "echo N 2"}, False),
        ({"runlevel": "echo unknown"}, False),
        ({}, False),
    ],
)
def test_state_of_the_init_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: dict[str, str], expected: bool
) -> None:
    for name, script in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert anyio.run(system_is_stopping) is expected
