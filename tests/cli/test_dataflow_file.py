"""A dataflow file from a path or a URL; its warnings are shown once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cli.conftest import HELLO, Dora

from dora_cli import dataflow_file
from dora_cli.dataflow_file import DataflowFileError


@pytest.fixture
def server() -> Iterator[str]:
    """Serves HELLO at /flows/hello.yml, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.startswith("/flows/hello.yml")
            self.send_response(200 if known else 404)
            self.end_headers()
            if known:
                self.wfile.write(HELLO.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_a_path_is_itself() -> None:
    assert dataflow_file.fetched("a/b.yml") == Path("a/b.yml")


def test_a_url_is_stored_under_its_name(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert dataflow_file.fetched(f"{server}/flows/hello.yml?v=1") == Path("hello.yml")
        assert Path("hello.yml").read_text() == HELLO
    Path("hello.yml").write_text("mine")
    with pytest.raises(DataflowFileError, match=r"would replace hello\.yml, which is different"):
        dataflow_file.fetched(f"{server}/flows/hello.yml")
    assert Path("hello.yml").read_text() == "mine"


def test_what_cannot_be_fetched(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataflowFileError, match=r"cannot fetch http.*gone\.yml: HTTP Error 404"):
        dataflow_file.fetched(f"{server}/gone.yml")
    with pytest.raises(DataflowFileError, match="names no file"):
        dataflow_file.fetched(f"{server}/")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "host", ["[", "127.0.0.1:port", "a b", "a..b", "x" * 300], ids=lambda host: host[:9]
)
def test_what_is_no_address(host: str) -> None:
    with pytest.raises(DataflowFileError, match=r"is no address|cannot fetch"):
        dataflow_file.fetched(f"http://{host}/x.yml")


def test_a_name_that_no_file_can_have(server: str) -> None:
    with pytest.raises(DataflowFileError, match="names no file"):
        dataflow_file.fetched(f"{server}/a%00b")


def test_warnings_go_to_the_terminal(dora: Dora, hello: Path) -> None:
    hello.write_text(f"env: {{LD_PRELOAD: x}}\n{HELLO}")
    shown = dora("graph", "--mermaid", hello.name)
    assert shown.code == 0
    assert shown.err.startswith("warning: hello.yml:1:7: ")
    assert "warning" not in shown.out


def test_a_folder_is_no_dataflow(dora: Dora, tmp_path: Path) -> None:
    assert dora("graph", ".").err == "[ERROR]\n. is a directory; expected a dataflow file\n"
