"""Artifacts are stored completely or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from dora_coordinator.io.artifacts import Artifact, ArtifactRefused, ArtifactStore

CONTENT = b"#!/bin/sh\n" + bytes(5000)


async def body(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def receive(
    store: ArtifactStore, content: bytes = CONTENT, build: str = "b1", node: str = "n", **more: str
) -> Artifact:
    async def run() -> Artifact:
        pieces = body(content[:100], content[100:])
        return await store.receive(build, node, pieces, expected=more.get("expected"))

    return anyio.run(run)


def test_a_stored_artifact_is_found(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts", max_bytes=10_000)
    made = receive(store, expected=hashlib.sha256(CONTENT).hexdigest())
    assert store.find("b1", "n") == made
    assert made.path.read_bytes() == CONTENT
    assert made.path.stat().st_mode & 0o777 == 0o600


def test_a_wrong_checksum_stores_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts", max_bytes=10_000)
    with pytest.raises(ArtifactRefused, match="SHA-256") as refused:
        receive(store, expected="0" * 64)
    assert refused.value.status == 422
    assert store.find("b1", "n") is None
    assert list((tmp_path / "artifacts" / "b1").iterdir()) == []


def test_an_upload_that_is_too_large_does_not_replace_the_older_one(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts", max_bytes=1000)
    small = receive(store, b"small")
    with pytest.raises(ArtifactRefused, match="max_artifact_bytes") as refused:
        receive(store)
    assert refused.value.status == 413
    assert store.find("b1", "n") == small


@pytest.mark.parametrize(
    ("build", "node"),
    [
        ("..", "n"),
        ("b1", ".."),
        ("b1", "../x"),
        ("a/b", "n"),
        ("", "n"),
        ("b1", "n:sha256"),
        ("b1", ""),
        ("b\n", "n"),
        ("b1", "n\x00"),
        ("x" * 200, "n"),
        ("b1", "n" * 200),
    ],
)
def test_ids_that_would_leave_the_folder_are_refused(tmp_path: Path, build: str, node: str) -> None:
    store = ArtifactStore(tmp_path / "artifacts", max_bytes=1000)
    with pytest.raises(ArtifactRefused) as refused:
        receive(store, b"x", build, node)
    assert refused.value.status == 400
    assert not (tmp_path / "artifacts").exists()
