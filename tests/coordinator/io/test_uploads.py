"""Uploads of code without a socket: interrupted, with bad arguments, beside a failing disk."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message
from support.fleets.stored_files import add, answered

from dora_config.file_store import FileRefused, FileStore
from dora_config.protocol.code import OFFSET_HEADER, CodeFile, CodeSet
from dora_coordinator.io import files as files_module
from dora_coordinator.io.files import CodeFiles

CONTENT = b"0123456789"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
GONE: Message = {"type": "http.disconnect"}


async def not_found(_: Sequence[str]) -> None:
    raise FileRefused(404, "nowhere")


@pytest.fixture
def files(tmp_path: Path) -> CodeFiles:
    return CodeFiles(FileStore(tmp_path / "files"), max_bytes=1 << 20, fetch=not_found)


def piece(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


def request(
    method: str,
    *messages: Message,
    offset: str | None = None,
    length: str = "",
    digest: str = DIGEST,
    query: str = "",
) -> Request:
    """A request for the file of CONTENT, or of POST, whose body arrives in these messages."""
    arriving = list(messages)

    async def receive() -> Message:
        return arriving.pop(0)

    announced = sum(len(message.get("body", b"")) for message in messages)
    headers = [(b"content-length", str(length or announced).encode())]
    if offset is not None:
        headers.append((OFFSET_HEADER.lower().encode(), offset.encode()))
    params = {"digest": digest}
    scope = {
        "type": "http",
        "method": method,
        "path_params": params,
        "headers": headers,
        "query_string": query.encode(),
    }
    return Request(scope, receive)


def put(
    files: CodeFiles, *messages: Message, offset: str | None = None, length: str = ""
) -> Response:
    return anyio.run(answered, files.file, request("PUT", *messages, offset=offset, length=length))


@pytest.mark.parametrize(
    ("max_bytes", "length", "status", "text"),
    [
        (1 << 20, "1000000000000", 413, "larger than 1048576 bytes (setting max_code_bytes)\n"),
        (1 << 60, "1000000000000000", 507, "931322.6 GiB are needed"),
        (1 << 60, "-1", 400, 'Content-Length: "-1" is not a number of bytes\n'),
    ],
)
def test_an_announced_length_is_checked_before_the_body(
    tmp_path: Path, max_bytes: int, length: str, status: int, text: str
) -> None:
    files = CodeFiles(FileStore(tmp_path / "files"), max_bytes=max_bytes, fetch=not_found)
    refused = put(files, length=length)  # without a message, receiving fails
    assert refused.status_code == status
    assert text in bytes(refused.body).decode()
    assert files.store.arrived(DIGEST) == 0


def test_an_upload_is_stored_although_unused_code_cannot_be_removed(
    files: CodeFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", "old")

    monkeypatch.setattr(FileStore, "collect", fail)
    with caplog.at_level(logging.WARNING):
        assert put(files, piece(CONTENT)).status_code == 201
    assert files.store.path(DIGEST).read_bytes() == CONTENT
    assert f"cannot remove unused code from {files.store.root}: " in caplog.text
    assert "Permission denied" in caplog.text


def test_an_interrupted_upload_is_continued(files: CodeFiles) -> None:
    assert put(files, piece(CONTENT[:4], more=True), GONE).status_code == 400
    assert files.store.arrived(DIGEST) == 4
    assert put(files, piece(CONTENT[4:]), offset="4").status_code == 201
    assert files.store.path(DIGEST).read_bytes() == CONTENT


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_reported(files: CodeFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    store = files.store
    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "open_partial", fail)
        refused = put(files, piece(CONTENT))
    assert refused.status_code == 507
    assert bytes(refused.body) == f"{store.root}: No space left on device\n".encode()


@pytest.mark.parametrize("broken", [(), ("discard",)])
def test_a_disk_that_is_full_at_the_end_leaves_nothing(
    files: CodeFiles, broken: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for name in ("publish", *broken):
            patch.setattr(FileStore, name, fail)
        assert put(files, piece(CONTENT)).status_code == 507
    assert files.store.arrived(DIGEST) == (len(CONTENT) if broken else 0)


@pytest.mark.parametrize("offset", ["", "-1", "1.5", "four", "1" * 5000])
def test_an_invalid_offset_is_refused(files: CodeFiles, offset: str) -> None:
    refused = put(files, piece(CONTENT), offset=offset)
    assert refused.status_code == 400
    expected = f'{OFFSET_HEADER}: "{offset[:80]}" is not a number of bytes\n'
    assert bytes(refused.body) == expected.encode()
    assert files.store.arrived(DIGEST) == 0


def test_a_list_of_files_has_a_limit(files: CodeFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAX_LIST", 100)
    messages = [piece(b" " * 60, more=True), piece(b" " * 60, more=True)]
    refused = anyio.run(answered, files.missing, request("POST", *messages))
    assert refused.status_code == 413


@pytest.mark.parametrize("body", [b"{", b"[" * 200_000, b"\xff", b"{}", b"[1]"])
def test_a_list_that_is_not_one_of_digests_is_refused(files: CodeFiles, body: bytes) -> None:
    assert anyio.run(answered, files.missing, request("POST", piece(body))).status_code == 400


def test_a_list_that_does_not_arrive_is_not_an_error(files: CodeFiles) -> None:
    answer = anyio.run(answered, files.missing, request("POST", piece(b"[", more=True), GONE))
    assert answer.status_code == 400


@pytest.mark.parametrize("broken", ["os.utime", "shutil.disk_usage"])
def test_a_list_with_a_failing_disk_is_answered_with_the_reason(
    files: CodeFiles, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: object, *_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(broken, read_only)
    body = json.dumps([DIGEST]).encode()
    refused = anyio.run(answered, files.missing, request("POST", piece(body)))
    assert refused.status_code == 507
    assert b": Read-only file system\n" in bytes(refused.body)


def test_a_missing_file_is_fetched_from_a_machine_once(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "files")
    fetched: list[str] = []

    async def fetch(digests: Sequence[str]) -> None:
        fetched.extend(digests)
        await anyio.wait_all_tasks_blocked()  # the other requests wait meanwhile
        add(store, CONTENT)

    files = CodeFiles(store, max_bytes=1 << 20, fetch=fetch)
    statuses = []

    async def get(method: str) -> None:
        statuses.append((await answered(files.file, request(method))).status_code)

    async def main() -> None:
        await get("HEAD")  # of a client that is about to upload it
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(get, "GET")

    anyio.run(main)
    assert statuses == [404, 200, 200, 200]
    assert fetched == [DIGEST]


def test_a_file_that_no_machine_has_or_that_is_still_sent(
    tmp_path: Path, files: CodeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = anyio.run(answered, files.file, request("GET"))
    assert (missing.status_code, bytes(missing.body)) == (404, b"nowhere\n")

    async def fetch(_: Sequence[str]) -> None:
        await anyio.sleep_forever()

    slow = CodeFiles(FileStore(tmp_path / "slow"), max_bytes=1 << 20, fetch=fetch)
    monkeypatch.setattr(files_module, "FETCH_SECONDS", 0.01)
    assert anyio.run(answered, slow.file, request("GET")).status_code == 503


def test_the_files_of_a_list_are_fetched_at_once(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "files")
    contents = [b"%d" % number for number in range(1000)]
    digests = [hashlib.sha256(one).hexdigest() for one in contents]
    code = CodeSet(
        files=tuple(
            CodeFile(path=f"{number}", sha256=digest, size=1)
            for number, digest in enumerate(digests)
        )
    )
    listed = code.model_dump_json().encode()
    add(store, listed)
    calls: list[set[str]] = []

    async def fetch(wanted: Sequence[str]) -> None:
        calls.append(set(wanted))
        await anyio.wait_all_tasks_blocked()
        for content in contents:
            add(store, content)

    files = CodeFiles(store, max_bytes=1 << 20, fetch=fetch)
    query = f"code={hashlib.sha256(listed).hexdigest()}"

    async def get(digest: str) -> None:
        assert (
            await answered(files.file, request("GET", digest=digest, query=query))
        ).status_code == 200

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for digest in digests[:3]:
                tasks.start_soon(get, digest)

    anyio.run(main)
    assert calls == [set(digests)]
