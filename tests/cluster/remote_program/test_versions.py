"""Trees and links of versions, one function at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dora_cluster.remote_program import versions


def make_tree(root: Path, name: str) -> Path:
    (root / name / "bin").mkdir(parents=True)
    (root / name / "bundle.json").write_text(json.dumps({"version": name, "content": name}))
    return root / name


def test_remove_keeps_files_of_others(tmp_path: Path) -> None:
    """The user chose the folder, and may keep other things there."""
    root, link = tmp_path / "data", tmp_path / "bin" / "dora"
    tree = make_tree(root, "1")
    make_tree(root, ".new-half")
    (root / "photos").mkdir()
    versions.switch(str(root), str(link), tree.name)
    versions.remove(str(root), str(link))
    assert [path.name for path in root.iterdir()] == ["photos"]
    assert not link.is_symlink()


def test_interrupted_removal_leaves_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path, "1")

    def cut(path: Path) -> None:
        versions.sweep(tmp_path)  # of another command
        (path / "bundle.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut)
        with pytest.raises(KeyboardInterrupt):
            versions.drop(str(tmp_path), str(tree))
    assert not tree.exists()
    versions.remove(str(tmp_path), str(tmp_path / "dora"))
    assert not tmp_path.exists()
