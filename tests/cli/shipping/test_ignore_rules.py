"""Default exclusions, and patterns of `.doraignore`."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import chdir
from pathlib import Path

import pytest
from support.workspace import Workspace

from dora_cli.shipping.sending import CollectionError, collect
from dora_config.dataflow.resolved import ResolvedNode


def paths(node: ResolvedNode, folder: Path) -> list[str]:
    return collect(node, folder).code.paths


def test_editor_files_sockets_and_caches_are_excluded(workspace: Workspace) -> None:
    for name in ("n/n.py", "n/__pycache__/n.pyc", "n/.mypy_cache/x", "n/.venv/pyvenv.cfg"):
        workspace.file(name, "")
    folder = workspace.path / "n"
    (folder / ".#n.py").symlink_to("somebody@desk.1234:1700000000")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener, chdir(folder):
        listener.bind("control.sock")
    if os.geteuid() == 0:
        os.mknod(folder / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    found = collect(ResolvedNode(id="n", path="n/n.py"), workspace.path)
    assert found.code.paths == ["n/n.py"]
    assert set(found.left_out) - {"n/null (device)"} == {
        *("n/.#n.py", "n/.mypy_cache/", "n/.venv/", "n/__pycache__/"),
        *("n/control.sock (socket)", "n/pipe (FIFO)"),
    }


def test_doraignore_has_the_rules_of_gitignore(workspace: Workspace) -> None:
    for name in (
        "n/n.py",
        "n/a.bag",
        "n/keep.bag",
        "n/rec/b.txt",
        "n/rec/c.txt",
        "n/top/x",
        "top/x",
    ):
        workspace.file(name, "")
    workspace.file("n/node_modules/x.js", "")
    workspace.file(".doraignore", "# recordings\n*.bag\n!keep.bag\n/top/\n!node_modules/\n")
    workspace.file("n/rec/.doraignore", "*\n!c.txt\n")
    found = collect(ResolvedNode(id="n", path="n/n.py", build=("make",)), workspace.path)
    assert found.code.paths == [
        *("n/keep.bag", "n/n.py", "n/node_modules/x.js", "n/rec/c.txt", "n/top/x"),
    ]


@pytest.mark.parametrize("folder", ["out/run", "node_modules/m", "ignored/model"])
def test_files_that_a_node_names_are_always_included(workspace: Workspace, folder: str) -> None:
    workspace.file(f"{folder}/n.py", "")
    workspace.file(f"{folder}/a/b.txt", "")
    workspace.file(f"{folder}/__pycache__/n.pyc", "")
    workspace.file("x.bin", "")
    workspace.file(".doraignore", "ignored/\n*.bin\n")
    node = ResolvedNode(id="n", path=f"{folder}/n.py", args=("x.bin",))
    assert paths(node, workspace.path) == [f"{folder}/a/b.txt", f"{folder}/n.py", "x.bin"]
    option = ResolvedNode(id="n", path="ffmpeg", args=(f"--from={folder.partition('/')[0]}",))
    assert paths(option, workspace.path) == [f"{folder}/a/b.txt", f"{folder}/n.py"]


def test_an_invalid_pattern_is_an_error_with_its_line(workspace: Workspace) -> None:
    workspace.file("n.py", "")
    workspace.file(".doraignore", "*.bag\n!\n")
    with pytest.raises(CollectionError, match=r"\.doraignore:2: invalid pattern '!'"):
        collect(ResolvedNode(id="n", path="n.py"), workspace.path)
