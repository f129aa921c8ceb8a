"""Routes of code files over HTTP: token, digests, resumed transfers."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fleets.coordinator import RunningCoordinator, running_coordinator

from dora_cli.shipping import sending
from dora_cli.shipping.sending import Collected
from dora_config.protocol.code import CodeSet
from dora_config.transfers import UploadFailed

pytestmark = pytest.mark.integration

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PATH = f"/api/files/{DIGEST}"


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def coordinator(home: Path) -> Iterator[RunningCoordinator]:
    assert home.is_dir()
    with running_coordinator() as running:
        yield running


def offset(coordinator: RunningCoordinator, number: int) -> dict[str, str]:
    return {**coordinator.endpoint.headers(), "X-Dora-Offset": str(number)}


def test_all_routes_need_the_token(coordinator: RunningCoordinator) -> None:
    for method, path in (("POST", "/api/files"), ("GET", PATH), ("PUT", PATH)):
        assert coordinator.request(path, method=method, headers={}, body=b"[]").status == 401


def test_missing_files_are_uploaded_and_downloaded_in_ranges(
    coordinator: RunningCoordinator,
) -> None:
    digests = json.dumps([DIGEST]).encode()
    listed = coordinator.request("/api/files", method="POST", body=digests)
    assert json.loads(listed.body) == [DIGEST]
    cut = coordinator.request(PATH, method="PUT", body=CONTENT[:5000])
    assert cut.status == 422, "half of the content has another digest"
    whole = coordinator.request(PATH, method="PUT", body=CONTENT)
    assert whole.status == 201
    listed = coordinator.request("/api/files", method="POST", body=digests)
    assert json.loads(listed.body) == []
    assert coordinator.request(PATH).body == CONTENT
    headers = {**coordinator.endpoint.headers(), "Range": "bytes=10000-"}
    rest = coordinator.request(PATH, headers=headers)
    assert (rest.status, rest.body) == (206, CONTENT[10000:])


def test_an_upload_without_room_is_refused_before_it_begins(
    coordinator: RunningCoordinator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = CONTENT + b"another"
    digest = hashlib.sha256(content).hexdigest()
    path = tmp_path / "content"
    path.write_bytes(content)
    part = Collected(CodeSet(files=()), {digest: path})
    with monkeypatch.context() as patch:
        patch.setattr(sending, "SPARE_BYTES", 1 << 60)
        with pytest.raises(
            UploadFailed, match=r"not enough space for the code .*: .*/files on the"
        ):
            sending.upload(coordinator.endpoint, [part])
    stored = f"/api/files/{digest}"
    assert coordinator.request(stored, method="HEAD").headers["x-dora-offset"] == "0"
    sending.upload(coordinator.endpoint, [part])
    assert coordinator.request(stored).body == content


def test_a_file_that_cannot_be_written_leaves_nothing(
    coordinator: RunningCoordinator, tmp_path: Path
) -> None:
    """A limit of the file size simulates a full disk."""
    limit = 1 << 20
    before = resource.prlimit(coordinator.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(coordinator.process.pid, resource.RLIMIT_FSIZE, (limit, before[1]))
    content = bytes(4 * limit)
    digest = hashlib.sha256(content).hexdigest()
    path = tmp_path / "content"
    path.write_bytes(content)
    part = Collected(CodeSet(files=()), {digest: path})
    try:
        with pytest.raises(UploadFailed, match=r"HTTP status 507 /.*/files: File too large"):
            sending.upload(coordinator.endpoint, [part])
    finally:
        resource.prlimit(coordinator.process.pid, resource.RLIMIT_FSIZE, before)
    found = coordinator.request(f"/api/files/{digest}", method="HEAD")
    assert found.headers["x-dora-offset"] == "0"


@pytest.mark.usefixtures("own_home")
def test_a_file_above_the_limit_is_refused_and_leaves_nothing() -> None:
    content = bytes(32 << 20)
    path = f"/api/files/{hashlib.sha256(content).hexdigest()}"
    with running_coordinator("--set", "max_code_bytes=1000000") as coordinator:
        refused = coordinator.request(path, method="PUT", body=content)
        assert (refused.status, refused.body) == (
            413, b"larger than 1000000 bytes (setting max_code_bytes)\n",
        )  # fmt: skip
        assert coordinator.request(path, method="HEAD").headers["x-dora-offset"] == "0"


@pytest.mark.usefixtures("own_home")
def test_a_refused_upload_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file of 1 TiB: sending all of it would take hours."""
    path, digest = tmp_path / "huge", "a" * 64
    path.touch()
    os.truncate(path, 1 << 40)
    part = Collected(CodeSet(files=()), {digest: path})
    monkeypatch.setattr(sending, "SPARE_BYTES", -(1 << 60))
    with running_coordinator("--set", "max_code_bytes=1000000") as coordinator:
        with pytest.raises(UploadFailed, match=r"413 larger than 1000000 bytes"):
            sending.upload(coordinator.endpoint, [part])
        assert coordinator.request(f"/api/files/{digest}", method="HEAD").status == 404


def test_an_upload_with_a_gap_is_refused(coordinator: RunningCoordinator) -> None:
    content = CONTENT + b"with a gap"
    path = f"/api/files/{hashlib.sha256(content).hexdigest()}"
    refused = coordinator.request(
        path, method="PUT", headers=offset(coordinator, 100), body=content[100:]
    )
    assert refused.status == 416
    assert coordinator.request(path, method="HEAD").headers["x-dora-offset"] == "0"


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "A" * 64, "abc"])
def test_files_are_named_by_their_digest(coordinator: RunningCoordinator, name: str) -> None:
    assert coordinator.request(f"/api/files/{name}").status in (400, 404)
    wrong = json.dumps([name]).encode()
    assert coordinator.request("/api/files", method="POST", body=wrong).status == 400


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'"x"'])
def test_invalid_lists_are_refused(coordinator: RunningCoordinator, body: bytes) -> None:
    assert coordinator.request("/api/files", method="POST", body=body).status == 400
