"""Content-addressed files: complete, resumed, collected."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from dora_config.file_store import FileRefused, FileStore


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


def test_file_exists_once_it_is_complete(store: FileStore) -> None:
    name = digest(b"hello")
    with store.open_partial(name, 0) as file:
        file.write(b"hel")
    assert store.use(name) is None
    assert store.arrived(name) == 3
    with store.open_partial(name, 3) as file:
        file.write(b"lo")
        store.publish(name, file)
    assert store.path(name).read_bytes() == b"hello"
    assert store.arrived(name) == 0
    assert store.missing([name, digest(b"x")]) == [digest(b"x")]


def test_file_with_another_digest_is_removed(store: FileStore) -> None:
    name = digest(b"hello")
    with store.open_partial(name, 0) as file:
        file.write(b"jello")
        with pytest.raises(FileRefused) as refused:
            store.publish(name, file)
    assert refused.value.status == 422
    assert store.arrived(name) == 0


def test_one_upload_at_a_time_without_gaps(store: FileStore) -> None:
    name = digest(b"hello")
    with store.open_partial(name, 0):
        with pytest.raises(FileRefused) as refused:
            store.open_partial(name, 0)
        assert refused.value.status == 409
    with pytest.raises(FileRefused) as refused:
        store.open_partial(name, 4)
    assert refused.value.status == 416


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 63])
def test_names_are_digests(store: FileStore, name: str) -> None:
    with pytest.raises(FileRefused):
        store.path(name)


def test_collecting_by_age_and_size(store: FileStore) -> None:
    names = [store.add(bytes([number]) * 100) for number in range(5)]
    assert store.collect(max_age=3600, max_bytes=0) == 0, "all were used just now"
    now = time.time()
    for age, name in enumerate(names):
        os.utime(store.path(name), (now, now - 100 * (age + 1)))
    assert store.collect(max_age=450, max_bytes=1000) == 1
    assert store.use(names[4]) is None
    assert store.collect(max_age=10_000, max_bytes=300) == 1
    assert store.missing(names) == [names[3], names[4]]
