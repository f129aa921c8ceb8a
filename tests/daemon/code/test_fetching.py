"""Downloads from a coordinator that breaks off, is busy, or refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.fleets import stored_files
from support.serving import served

from dora_config.access import Endpoint
from dora_config.file_store import FileStore
from dora_daemon.code import fetching
from dora_daemon.code.fetching import CodeMissing, Fetcher

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
    monkeypatch.setattr(fetching, "MAX_PAUSE", 0.001)
    return FileStore(tmp_path / "store")


def test_download_that_breaks_off_is_resumed(server: Server, store: FileStore) -> None:
    server.answers = [send(300), send(300), send(700)]
    Fetcher(server.endpoint, store).fetch([NAME])
    assert store.path(NAME).read_bytes() == CONTENT
    assert server.offsets == [0, 300, 300, 700]


def test_busy_coordinator_is_asked_again(server: Server, store: FileStore) -> None:
    server.answers = [refuse(503), refuse(429)] * fetching.ATTEMPTS
    Fetcher(server.endpoint, store).fetch([NAME])
    assert store.path(NAME).read_bytes() == CONTENT


def test_attempts_without_progress_are_limited(server: Server, store: FileStore) -> None:
    server.answers = [send(0)] * 20
    with pytest.raises(CodeMissing, match=r"cannot fetch code from the coordinator at .* ended"):
        Fetcher(server.endpoint, store).fetch([NAME])
    assert len(server.offsets) == fetching.ATTEMPTS


def test_attempts_at_a_busy_coordinator_have_their_own_limit(
    server: Server, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "BUSY_ATTEMPTS", 7)
    broken = fetching.ATTEMPTS - 1
    server.answers = [refuse(503)] * 6 + [send(0)] * broken
    Fetcher(server.endpoint, store).fetch([NAME])
    assert store.path(NAME).read_bytes() == CONTENT
    store.path(NAME).unlink()
    server.answers, server.offsets = [send(0)] * broken + [refuse(503)] * 20, []
    with pytest.raises(CodeMissing, match=r"cannot fetch code from the coordinator at .* 503"):
        Fetcher(server.endpoint, store).fetch([NAME])
    assert len(server.offsets) == broken + 7


def test_refusal_is_final(server: Server, store: FileStore) -> None:
    server.answers = [refuse(403)]
    with pytest.raises(CodeMissing, match="refused to send code: HTTP status 403"):
        Fetcher(server.endpoint, store).fetch([NAME])


def test_file_that_another_process_published_is_used(server: Server, store: FileStore) -> None:
    with store.open_partial(NAME, 0) as file:
        file.write(CONTENT[:300])

    def overtaken(request: BaseHTTPRequestHandler, offset: int) -> None:
        stored_files.add(store, CONTENT)
        send(len(CONTENT))(request, offset)

    server.answers = [overtaken]
    Fetcher(server.endpoint, store).fetch([NAME])
    assert server.offsets == [300]
    assert store.path(NAME).read_bytes() == CONTENT


def test_waits_while_another_process_hashes_the_file(server: Server, store: FileStore) -> None:
    other = store.open_partial(NAME, 0)
    other.write(CONTENT)
    other.flush()

    def locked(request: BaseHTTPRequestHandler, offset: int) -> None:
        if len(server.offsets) == 3 * fetching.ATTEMPTS:
            with other:
                store.publish(NAME, other)
        refuse(416)(request, offset)

    server.answers = [locked] * 100
    Fetcher(server.endpoint, store).fetch([NAME])
    assert len(server.offsets) == 3 * fetching.ATTEMPTS


def test_cancelled_download_ends_between_pieces(server: Server, store: FileStore) -> None:
    server.answers = [send(300)] * 100
    fetcher = Fetcher(server.endpoint, store, lambda: len(server.offsets) > 1)
    with pytest.raises(CodeMissing, match="was cancelled"):
        fetcher.fetch([NAME])
    assert store.arrived(NAME) == 300
