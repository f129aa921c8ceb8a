"""The store of uploaded code."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from dora_cli.remote_program import code_store
from dora_cli.remote_program.protocol import Problem

CONTENT = b"print('hello')\n"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def upload(content: bytes, name: str = DIGEST) -> Path:
    """Write an archive with one file to where the store expects it."""
    path = Path(code_store.missing([name])["path"])
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return path


def test_taken_file_is_not_missing_any_more(home: Path) -> None:
    path = upload(CONTENT)
    size = path.stat().st_size
    found = code_store.missing([DIGEST])
    assert found["missing"] == [DIGEST]
    assert found["size"] == size
    assert code_store.take(found["path"]) == {"taken": 1}
    assert code_store.missing([DIGEST])["missing"] == []
    store = Path(found["store"])
    assert (store / DIGEST[:2] / DIGEST).read_bytes() == CONTENT
    assert list((store / "partial").iterdir()) == []


def test_two_transfers_of_the_same_files_do_not_meet(home: Path) -> None:
    """One has begun to send when the other one asks what is missing."""
    first = upload(CONTENT)
    with first.open("ab"):
        second = Path(code_store.missing([DIGEST])["path"])
    assert second != first
    assert code_store.take(str(first)) == {"taken": 1}
    assert code_store.take(str(second)) == {"taken": 1}


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [(b"other", DIGEST, "data is corrupt"), (CONTENT, "../../evil", "unexpected file")],
)
def test_wrong_content_and_names_are_refused(
    home: Path, content: bytes, name: str, reason: str
) -> None:
    path = upload(content, name)
    with pytest.raises(Problem, match=reason):
        code_store.take(str(path))
    assert not path.exists()
    assert code_store.missing([DIGEST])["missing"] == [DIGEST]


def test_truncated_archive_is_refused(home: Path) -> None:
    path = upload(CONTENT)
    path.write_bytes(path.read_bytes()[:520])
    with pytest.raises(Problem, match="archive is corrupt"):
        code_store.take(str(path))
