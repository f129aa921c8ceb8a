"""Lock files: writing, reading, and refusal if they do not match the dataflow file."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_config.dataflow.resolved import ResolvedDataflow
from dora_daemon.build.errors import LockFileError
from dora_daemon.build.lock_file import (
    LockedSource,
    check_lock,
    lock_file_path,
    read_lock_file,
    write_lock_file,
)

COMMIT = "a" * 40


def _dataflow(**git: str) -> ResolvedDataflow:
    nodes = [{"id": "n", "path": "n.py", "git": git}, {"id": "plain", "path": "p.py"}]
    return ResolvedDataflow.model_validate({"nodes": nodes})


def test_it_lies_beside_the_dataflow_file() -> None:
    assert lock_file_path(Path("d/flow.yml")) == Path("d/flow.dora-lock.yaml")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "flow.dora-lock.yaml"
    sources = {
        "n": LockedSource(
            repo="https://git.example/n", reference='branch "main"', commit_hash=COMMIT
        )
    }
    write_lock_file(path, sources)
    assert read_lock_file(path) == sources
    assert path.read_text() == (
        "version: 2\n"
        "git_sources:\n"
        "  n:\n"
        "    repo: https://git.example/n\n"
        '    reference: branch "main"\n'
        f"    commit_hash: {COMMIT}\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_lock_file_of_dora_rs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lock.yaml"
    path.write_text(
        "version: 2\ndescriptor_fingerprint: 6f328d25bcf8266a\n"
        f"git_sources:\n  n:\n    repo: u\n    commit_hash: {COMMIT}\n"
    )
    locked = read_lock_file(path)
    assert check_lock(path, locked, _dataflow(url="u", branch="main")) == {"n": COMMIT}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"the lock file does not exist; write it with `dora build --write-lockfile`"),
        ("a: [", "line 2: invalid YAML"),
        (b"\xff", "cannot be read"),
        ("[]", "is not a lock file"),
        ("git_sources: {n: {repo: u}}", 'git_sources of node "n": expected the texts `repo` and'),
        ("git_sources: {n: {repo: 7, commit_hash: a}}", "commit_hash 'a' is not 40 or 64 hex"),
        ("version: 3\ngit_sources: {}", "has version 3, expected 2; write it with this version"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str | bytes | None, message: str) -> None:
    path = tmp_path / "lock.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LockFileError, match=message) as caught:
        read_lock_file(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("locked", "message"),
    [
        ({}, 'node "n" has a git source but is not in the lock file; update it'),
        (
            {"n": LockedSource(repo="other", commit_hash=COMMIT)},
            'node "n" is locked to other, but uses u',
        ),
        (
            {"n": LockedSource(repo="u", commit_hash=COMMIT, reference='tag "v1"')},
            'node "n" is locked to tag "v1", but uses branch "main"',
        ),
    ],
)
def test_a_stale_lock_names_node_and_remedy(locked: dict[str, LockedSource], message: str) -> None:
    with pytest.raises(LockFileError, match=message):
        check_lock(Path("lock.yaml"), locked, _dataflow(url="u", branch="main"))


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "lock.yaml"
    path.mkdir()
    with pytest.raises(LockFileError, match=rf"^{path}: cannot be written: Is a directory$"):
        write_lock_file(path, {"n": LockedSource(repo="u", commit_hash=COMMIT)})
    assert list(tmp_path.iterdir()) == [path]
