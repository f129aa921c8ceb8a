"""Content-addressed files: complete, resumed, collected."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path

import pytest
from support.fleets.stored_files import add

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
    names = [add(store, bytes([number]) * 100) for number in range(5)]
    assert store.collect(max_age=3600, max_bytes=0) == 0, "all were used just now"
    now = time.time()
    for age, name in enumerate(names):
        os.utime(store.path(name), (now, now - 100 * (age + 1)))
    assert store.collect(max_age=450, max_bytes=1000) == 1
    assert store.use(names[4]) is None
    assert store.collect(max_age=10_000, max_bytes=300) == 1
    assert store.missing(names) == names[3:]


def test_file_used_while_others_are_collected_stays(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = add(store, b"hello")
    now = time.time()
    os.utime(store.path(name), (now, now - 1000))
    listed = Path.glob

    def glob_then_use(path: Path, pattern: str) -> Iterator[Path]:
        yield from listed(path, pattern)
        store.use(name)

    monkeypatch.setattr(Path, "glob", glob_then_use)
    assert store.collect(max_age=500, max_bytes=1000) == 0
    assert store.use(name) is not None


def test_file_published_before_the_lock_is_not_truncated(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = digest(b"hello")
    other = store.open_partial(name, 0)
    other.write(b"hello")
    lock = fcntl.flock

    def publish_before(file: BufferedRandom, operation: int) -> None:
        if not other.closed:
            with other:
                store.publish(name, other)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", publish_before)
    with store.open_partial(name, 0) as file:
        assert store.path(name).read_bytes() == b"hello"
        file.write(b"hello")
        store.publish(name, file)
    assert store.path(name).read_bytes() == b"hello"


def test_discarding_spares_a_file_that_another_upload_writes(store: FileStore) -> None:
    name = digest(b"hello")
    with store.open_partial(name, 0) as file:
        file.write(b"hel")
        file.flush()
        store.discard(name)
        assert store.arrived(name) == 3
    store.discard(name)
    assert store.arrived(name) == 0
    store.discard(name)
