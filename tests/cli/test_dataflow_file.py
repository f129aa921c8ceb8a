"""Dataflow files from paths and URLs, and their warnings."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cli.conftest import HELLO
from support.command_line import Dora
from support.serving import served

from dora_cli import dataflow_file
from dora_cli.dataflow_file import DataflowFileError


@pytest.fixture
def server() -> Iterator[str]:
    """Serves only HELLO at /flows/hello.yml."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.startswith("/flows/hello.yml")
            self.send_response(200 if known else 404)
            self.end_headers()
            if known:
                self.wfile.write(HELLO.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http, served(http):
        yield f"http://127.0.0.1:{http.server_port}"


def test_a_path_is_returned_unchanged() -> None:
    assert dataflow_file.local_path("a/b.yml") == Path("a/b.yml")


def test_a_url_is_stored_under_its_name(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert dataflow_file.local_path(f"{server}/flows/hello.yml?v=1") == Path("hello.yml")
        assert Path("hello.yml").read_text() == HELLO
    Path("hello.yml").write_text("mine")
    with pytest.raises(DataflowFileError, match=r"would replace hello\.yml, which differs"):
        dataflow_file.local_path(f"{server}/flows/hello.yml")
    assert Path("hello.yml").read_text() == "mine"


def test_failed_downloads(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataflowFileError, match=r"cannot download http.*gone\.yml: HTTP Error 404"):
        dataflow_file.local_path(f"{server}/gone.yml")
    with pytest.raises(DataflowFileError, match="has no file name"):
        dataflow_file.local_path(f"{server}/")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "host", ["[", "127.0.0.1:port", "a b", "a..b", "x" * 300], ids=lambda host: host[:9]
)
def test_malformed_urls(host: str) -> None:
    with pytest.raises(DataflowFileError, match=r"is not a valid URL|cannot download"):
        dataflow_file.local_path(f"http://{host}/x.yml")


def test_a_null_byte_in_the_name(server: str) -> None:
    with pytest.raises(DataflowFileError, match="has no file name"):
        dataflow_file.local_path(f"{server}/a%00b")


def test_warnings_go_to_the_terminal(dora: Dora, hello: Path) -> None:
    hello.write_text(f"env: {{LD_PRELOAD: x}}\n{HELLO}")
    shown = dora("graph", "--mermaid", hello.name)
    assert shown.code == 0
    assert shown.err.startswith("warning: hello.yml:1:7: ")
    assert "warning" not in shown.out


def test_a_folder_is_refused(dora: Dora, tmp_path: Path) -> None:
    assert dora("graph", ".").err == "[ERROR]\n. is a directory; expected a dataflow file\n"
