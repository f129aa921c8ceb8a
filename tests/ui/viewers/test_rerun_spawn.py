"""Mode SPAWN of `dora-rerun`, with a program that stands for the viewer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.fleets.coordinator import free_port
from support.waiting import wait_until

pytestmark = pytest.mark.integration
# A path in the first line must have no spaces.
VIEWER = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import json, os, socket, sys
port = next(int(word.partition("=")[2]) for word in sys.argv if word.startswith("--port="))
with socket.create_server(("127.0.0.1", port)) as listener:
    with open({log!r} + ".new", "w") as file:
        json.dump(sys.argv[1:], file)
    os.rename({log!r} + ".new", {log!r})
    listener.settimeout(60)
    listener.accept()
"""
# The library does not wait for the viewer, so it is used in a process of its own.
NODE = """
import sys
import rerun as rr
from dora_ui.viewers.rerun_node import Address, spawn_viewer
from dora_ui.viewers.viewer_node import CannotShow

sys.executable = sys.argv[1] + "/python"
try:
    spawn_viewer(rr.RecordingStream("test"), Address("127.0.0.1", int(sys.argv[2]), ""))
except CannotShow as error:
    sys.exit(str(error))
"""


def spawn(beside: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Start a viewer as a node does whose Python is in the folder ``beside``."""
    words = [sys.executable, "-c", NODE, str(beside), str(free_port())]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)


def viewer(folder: Path) -> Path:
    """Put a program into the folder; return the file that it writes its arguments to."""
    log = folder / "log"
    program = folder / "rerun"
    program.write_text(VIEWER.format(python=sys.executable, log=str(log)))
    program.chmod(0o755)
    return log


def arguments(log: Path) -> list[str]:
    wait_until(log.exists, what="the start of the viewer")
    found: list[str] = json.loads(log.read_text())
    return found


def test_the_program_beside_python_is_started(tmp_path: Path) -> None:
    log = viewer(tmp_path)
    assert spawn(tmp_path).returncode == 0
    assert "--memory-limit=25%" in arguments(log)


def test_the_program_on_path_is_started_with_the_chosen_memory(tmp_path: Path) -> None:
    log = viewer(tmp_path)
    done = spawn(tmp_path / "elsewhere", PATH=str(tmp_path), RERUN_MEMORY_LIMIT="4GB")
    assert done.returncode == 0
    assert "--memory-limit=4GB" in arguments(log)


def test_a_missing_program_is_named_with_the_remedy(tmp_path: Path) -> None:
    done = spawn(tmp_path, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "the program `rerun` is not on PATH; install it" in done.stderr
