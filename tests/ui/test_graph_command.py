"""`dora graph`: an offline page."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.command_line import Dora


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    (tmp_path / "camera.py").write_text("")
    path = tmp_path / "hello.yml"
    path.write_text("nodes: [{id: camera, path: camera.py, outputs: [image]}]")
    return path


def test_the_page_needs_no_network(dora: Dora, hello: Path) -> None:
    assert dora("graph", hello.name).out == "wrote hello-graph.html\n"
    page = hello.with_name("hello-graph.html").read_text()
    assert "<link" not in page
    assert "camera.py" in page


def test_a_full_disk_keeps_the_old_page(
    dora: Dora, hello: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = hello.with_name("hello-graph.html")
    page.write_text("the old one")

    def full(path: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    shown = dora("graph", hello.name)
    assert shown.code == 1
    assert "hello-graph.html: No space left on device" in shown.err
    assert page.read_text() == "the old one"
    assert not [path.name for path in hello.parent.iterdir() if path.name.endswith(".new")]


def test_open_uses_the_browser(dora: Dora, hello: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def no_browser(url: str) -> bool:
        opened.append(url)
        return False

    monkeypatch.setattr("webbrowser.open", no_browser)
    shown = dora("graph", "--open", hello.name)
    page = hello.with_name("hello-graph.html").resolve()
    assert opened == [page.as_uri()]
    assert shown.err == "warning: cannot start a browser; open hello-graph.html by hand\n"
