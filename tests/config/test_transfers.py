"""Downloads from a coordinator that breaks off, is busy, or refuses."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import pytest
from support.fleets import stored_files
from support.serving import served

from dora_config import transfers
from dora_config.access import Endpoint
from dora_config.file_store import FileStore
from dora_config.retry import RetryPolicy
from dora_config.transfers import DownloadFailed, Downloads, PlainFile, StoredFile

CONTENT = b"0123456789" * 100
NAME = hashlib.sha256(CONTENT).hexdigest()

Answer = Callable[[BaseHTTPRequestHandler, int], None]


class Server:
    """Answers each request with the next of ``answers``; then with the file."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.offsets: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                first = self.headers.get("Range", "bytes=0-").removeprefix("bytes=")
                offset = int(first.rstrip("-"))
                outer.offsets.append(offset)
                answer = outer.answers.pop(0) if outer.answers else send(len(CONTENT))
                answer(self, offset)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Http(ThreadingHTTPServer):
            daemon_threads = False  # closing waits for the handlers, and so for their sockets

        self.http = Http(("127.0.0.1", 0), Handler)
        self.endpoint = Endpoint("127.0.0.1", self.http.server_port)


def send(end: int) -> Answer:
    """Send the file up to ``end``, then close the connection."""

    def answer(request: BaseHTTPRequestHandler, offset: int) -> None:
        request.send_response(206 if offset else 200)
        request.send_header("Content-Length", str(len(CONTENT) - offset))
        request.end_headers()
        request.wfile.write(CONTENT[offset:end])
        request.close_connection = True

    return answer


def refuse(status: int) -> Answer:
    def answer(request: BaseHTTPRequestHandler, offset: int) -> None:
        request.send_error(status)

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with server.http, served(server.http):
        yield server


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    monkeypatch.setattr(RetryPolicy, "delay", lambda policy, failures: 0.001)
    return FileStore(tmp_path / "store")


def fetch(server: Server, store: FileStore) -> None:
    with Downloads(server.endpoint) as downloads:
        downloads.download("/file", StoredFile(store, NAME))


def test_download_that_breaks_off_is_resumed(server: Server, store: FileStore) -> None:
    server.answers = [send(300), send(300), send(700)]
    fetch(server, store)
    assert store.path(NAME).read_bytes() == CONTENT
    assert server.offsets == [0, 300, 300, 700]


def test_busy_coordinator_is_asked_again(server: Server, store: FileStore) -> None:
    server.answers = [refuse(503), refuse(429)] * 5
    fetch(server, store)
    assert store.path(NAME).read_bytes() == CONTENT


def test_attempts_without_progress_are_limited(server: Server, store: FileStore) -> None:
    server.answers = [send(0)] * 20
    with pytest.raises(DownloadFailed, match=r"cannot fetch /file from the coord.* ended"):
        fetch(server, store)
    assert len(server.offsets) == transfers.BROKEN.limit + 1


def test_attempts_at_a_busy_coordinator_have_their_own_limit(
    server: Server, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "BUSY", RetryPolicy(limit=6))
    broken = transfers.BROKEN.limit
    server.answers = [refuse(503)] * 6 + [send(0)] * broken
    fetch(server, store)
    assert store.path(NAME).read_bytes() == CONTENT
    store.path(NAME).unlink()
    server.answers, server.offsets = [send(0)] * broken + [refuse(503)] * 20, []
    with pytest.raises(DownloadFailed, match=r"cannot fetch /file from the coordinator at .* 503"):
        fetch(server, store)
    assert len(server.offsets) == broken + 7


def test_refusal_is_final(server: Server, store: FileStore) -> None:
    server.answers = [refuse(403)]
    with pytest.raises(DownloadFailed, match="refused to send /file: HTTP status 403"):
        fetch(server, store)


def test_file_that_another_process_published_is_used(server: Server, store: FileStore) -> None:
    with store.open_partial(NAME, 0) as file:
        file.write(CONTENT[:300])

    def overtaken(request: BaseHTTPRequestHandler, offset: int) -> None:
        stored_files.add(store, CONTENT)
        send(len(CONTENT))(request, offset)

    server.answers = [overtaken]
    fetch(server, store)
    assert server.offsets == [300]
    assert store.path(NAME).read_bytes() == CONTENT


def test_waits_while_another_process_hashes_the_file(server: Server, store: FileStore) -> None:
    other = store.open_partial(NAME, 0)
    other.write(CONTENT)
    other.flush()

    def locked(request: BaseHTTPRequestHandler, offset: int) -> None:
        if len(server.offsets) == 15:
            with other:
                store.publish(NAME, other)
        refuse(416)(request, offset)

    server.answers = [locked] * 100
    fetch(server, store)
    assert len(server.offsets) == 15


def test_cancelled_download_ends_between_pieces(server: Server, store: FileStore) -> None:
    server.answers = [send(300)] * 100
    downloads = Downloads(server.endpoint, lambda: len(server.offsets) > 1)
    with downloads, pytest.raises(DownloadFailed, match="was cancelled"):
        downloads.download("/file", StoredFile(store, NAME))
    assert store.arrived(NAME) == 300


def test_plain_file_is_resumed_and_ends_at_its_size(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetryPolicy, "delay", lambda policy, failures: 0.001)
    file = PlainFile(tmp_path / "file", len(CONTENT) - 10)  # more was added at its source
    server.answers = [send(300), send(300)]
    with Downloads(server.endpoint) as downloads:
        downloads.download("/file", file)
        downloads.download("/file", file)
    assert file.path.read_bytes() == CONTENT[:-10]
    assert server.offsets == [0, 300, 300]


def test_plain_file_that_is_shorter_than_announced_is_refused(
    server: Server, tmp_path: Path
) -> None:
    file = PlainFile(tmp_path / "file", len(CONTENT) + 1)
    with (
        Downloads(server.endpoint) as downloads,
        pytest.raises(DownloadFailed, match="file ends after 1000 of 1001 bytes"),
    ):
        downloads.download("/file", file)


def test_sentence_of_a_json_error_is_the_reason(server: Server, store: FileStore) -> None:
    def failed(request: BaseHTTPRequestHandler, offset: int) -> None:
        request.send_response(500)
        request.send_header("Content-Type", "application/json")
        request.end_headers()
        request.wfile.write(b'{"error":"no connection to daemon \\"robot\\"","code":"failed"}')
        request.close_connection = True

    server.answers = [failed]
    with pytest.raises(DownloadFailed, match=r'^no connection to daemon "robot"$'):
        fetch(server, store)


def test_full_disk_keeps_what_can_be_continued(
    server: Server, store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Downloads, answer: object, file: IO[bytes], path: str) -> None:
        file.write(CONTENT[:300])
        raise OSError(errno.ENOSPC, "No space left on device")

    file, stored = PlainFile(tmp_path / "file", len(CONTENT)), StoredFile(store, NAME)
    with monkeypatch.context() as patch, Downloads(server.endpoint) as downloads:
        patch.setattr(Downloads, "_copy", fail)
        for target in (file, stored):
            with pytest.raises(OSError, match="No space left"):
                downloads.download("/file", target)
    assert (file.arrived(), stored.arrived()) == (300, 0)
