"""Checkout of sent code into a working directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.fleets.stored_files import add

from dora_config.file_store import FileStore
from dora_config.protocol.code import CodeFile, CodeLink, CodeSet
from dora_daemon.code.checkout import CodeConflict, check_out, growth, merged


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


def file(store: FileStore, path: str, content: bytes) -> CodeFile:
    return CodeFile(path=path, sha256=add(store, content), size=len(content), executable=False)


def test_golden_index(tmp_path: Path, store: FileStore) -> None:
    node, link = file(store, "a/node.py", b"pass"), CodeLink(path="b", target="a/node.py")
    check_out(CodeSet(files=(node,), links=(link,)), tmp_path / "work", store, "flow")
    status = (tmp_path / "work/a/node.py").stat()
    stamp = f'["{node.sha256}", {status.st_mtime_ns}, {status.st_ino}, 4]'
    index = (tmp_path / "work/.dora/code/flow.json").read_text()
    assert index == f'{{"a/node.py": {stamp}, "b": []}}'


def test_next_checkout_replaces_changed_files_and_removes_old_ones(
    tmp_path: Path, store: FileStore
) -> None:
    work = tmp_path / "work"
    same, old = file(store, "same.py", b"1"), file(store, "old/old.py", b"2")
    check_out(CodeSet(files=(same, old)), work, store, "flow")
    (work / "result.txt").write_text("of a node")
    before = (work / "same.py").stat().st_mtime_ns
    (work / ".dora/code/flow.json").write_text("unreadable")
    check_out(CodeSet(files=(same, old)), work, store, "flow")
    assert (work / "same.py").stat().st_mtime_ns == before
    changed = file(store, "same.py", b"3")
    assert growth(CodeSet(files=(changed, file(store, "new.py", b"four"))), work) == 4
    check_out(CodeSet(files=(changed,)), work, store, "flow")
    assert (work / "same.py").read_bytes() == b"3"
    assert {path.name for path in work.iterdir()} == {".dora", "same.py", "result.txt"}
    assert list(json.loads((work / ".dora/code/flow.json").read_text())) == ["same.py"]


def test_folder_with_files_is_not_replaced(tmp_path: Path, store: FileStore) -> None:
    (tmp_path / "work" / "node.py").mkdir(parents=True)
    code = CodeSet(files=(file(store, "node.py", b""),))
    check_out(code, tmp_path / "work", store, "flow")
    (tmp_path / "work" / "node.py").unlink()
    (tmp_path / "work" / "node.py" / "mine").mkdir(parents=True)
    with pytest.raises(CodeConflict, match=r"node\.py is a folder that is not empty"):
        check_out(code, tmp_path / "work", store, "flow")


def test_nodes_with_different_files_at_one_path_conflict(store: FileStore) -> None:
    one, other = file(store, "a.py", b"1"), file(store, "a.py", b"2")
    assert merged([CodeSet(files=(one,)), CodeSet(files=(one,))]).files == (one,)
    assert merged([CodeSet(files=(one,)), CodeSet(files=(other,))]).files == (other,)


def test_nodes_whose_links_lead_out_together_conflict() -> None:
    one = CodeSet(links=(CodeLink(path="d/up", target=".."),))
    other = CodeSet(links=(CodeLink(path="k", target="d/up/.."),))
    with pytest.raises(CodeConflict, match=r"do not fit together: 'k' links to .*, outside of"):
        merged([one, other])


def test_files_of_another_running_dataflow_stay(tmp_path: Path, store: FileStore) -> None:
    shared, lib = file(store, "shared.py", b"1"), file(store, "lib.py", b"2")
    link = CodeLink(path="link", target="lib.py")
    code = CodeSet(files=(shared, lib), links=(link,))
    check_out(code, tmp_path, store, "one")
    check_out(code, tmp_path, store, "two", ["one", "two"])
    check_out(CodeSet(files=(shared,)), tmp_path, store, "two", ["one", "two"])
    assert (tmp_path / "lib.py").exists()
    for other in (
        CodeSet(files=(file(store, "lib.py", b"3"),)),
        CodeSet(files=(file(store, "link", b"3"),)),
        CodeSet(links=(CodeLink(path="link", target="shared.py"),)),
        CodeSet(links=(CodeLink(path="lib.py", target="shared.py"),)),
    ):
        with pytest.raises(CodeConflict, match="belongs to another dataflow that runs"):
            check_out(other, tmp_path, store, "two", ["one"])
    assert (tmp_path / "lib.py").read_bytes() == b"2"
    check_out(CodeSet(files=(file(store, "lib.py", b"3"),)), tmp_path, store, "two")
