"""What is done on a machine to its trees and links, one function at a time, in this process."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dora_cli.bundle import machine_program
from dora_cli.bundle.install import probe
from dora_cli.bundle.layout import SYSTEM, Layout, system
from dora_cli.bundle.machine import Finished, MachineProblem


class InProcess:
    """A machine whose commands are functions of this process."""

    name = "robot (pi@r)"

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        sudo: bool = False,
        timeout: float = 60.0,
    ) -> Finished:
        answer = machine_program.COMMANDS[argv[4]](**json.loads(argv[5]))
        return _Answer(json.dumps(answer))

    def send(self, *words: Any, **options: Any) -> None:
        raise AssertionError


@dataclass(frozen=True)
class _Answer:
    stdout: str
    code: int = 0
    stderr: str = ""


def make_tree(root: Path, name: str) -> Path:
    (root / name / "bin").mkdir(parents=True)
    (root / name / "bundle.json").write_text(json.dumps({"version": name, "content": name}))
    return root / name


def test_removing_takes_nothing_that_is_not_ours(tmp_path: Path) -> None:
    """The user chose the folder, and may keep other things there."""
    root, link = tmp_path / "data", tmp_path / "bin" / "dora"
    tree = make_tree(root, "1")
    make_tree(root, ".new-half")
    (root / "photos").mkdir()
    machine_program.switch(str(root), str(link), str(tree))
    machine_program.remove(str(root), str(link))
    assert [path.name for path in root.iterdir()] == ["photos"]
    assert not link.is_symlink()


def test_a_tree_that_is_removed_goes_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path, "1")
    os.utime(tree, (0, 0))

    def cut(path: Path) -> None:
        machine_program._sweep(tmp_path)  # somebody else's
        (path / "bundle.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut)
        with pytest.raises(KeyboardInterrupt):
            machine_program.drop(str(tmp_path), str(tree))
    assert not tree.exists()
    machine_program.remove(str(tmp_path), str(tmp_path / "dora"))
    assert not tmp_path.exists()


def test_a_disk_that_fills_up_while_unpacking_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a.part"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(make_tree(tmp_path, "1"), ".")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()

    def full(packed: tarfile.TarFile, path: Path, **options: object) -> None:
        (path / "begun").write_text("")
        raise OSError(errno.ENOSPC, "No space left on device", str(path / "begun"))

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    with pytest.raises(OSError, match="No space left"):
        machine_program.unpack(str(archive), sha256, str(tmp_path / "prefix"), "2")
    assert list((tmp_path / "prefix").iterdir()) == []
    assert archive.exists(), "what was sent need not be sent again"


def test_another_prefix_than_before_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "bin" / "dora"
    tree = make_tree(tmp_path / "old", "1")
    machine_program.switch(str(tmp_path / "old"), str(link), str(tree))
    layout = Layout(str(tmp_path / "old"), str(link), sudo=False)
    assert probe(InProcess(), layout)["current"]["name"] == "1"
    moved = Layout(str(tmp_path / "new"), str(link), sudo=False)
    with pytest.raises(MachineProblem, match=f"dora lies in {tmp_path}/old there"):
        probe(InProcess(), moved)
    link.unlink()
    assert probe(InProcess(), moved)["current"] is None
    link.symlink_to("/usr/bin/true")  # somebody else's: `switch` says so if it is no link
    assert probe(InProcess(), moved)["current"] is None


def test_a_prefix_needs_the_folder_above_it(tmp_path: Path) -> None:
    layout = system(f"{tmp_path}/disk/dora")
    assert (layout.link, layout.sudo) == (SYSTEM.link, True)
    with pytest.raises(MachineProblem, match=r"there is no folder for .*/disk/dora \(`prefix`"):
        probe(InProcess(), layout)
    assert system(None) == SYSTEM
