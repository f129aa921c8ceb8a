"""`dora graph`: Mermaid text, and a page that needs no network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli.conftest import Dora


def test_mermaid(dora: Dora, hello: Path) -> None:
    assert dora("graph", "--mermaid", hello.name).out == (
        "flowchart LR\n"
        '    n0["camera"]\n'
        '    n1["plot"]\n'
        '    n2(["dora/timer/millis/50"])\n'
        '    n2 -->|"tick"| n0\n'
        '    n0 -->|"image → picture"| n1\n'
        '    n0 -->|"image"| n1\n'
    )


def test_the_page_stands_alone(dora: Dora, hello: Path) -> None:
    assert dora("graph", hello.name).out == "wrote hello-graph.html\n"
    page = hello.with_name("hello-graph.html").read_text()
    assert not re.search(r"<script|<link|@import|url\((?!#)|src=", page)
    assert set(re.findall(r"https?://[^\"']+", page)) == {"http://www.w3.org/2000/svg"}
    for text in ("camera.py", "image → picture", "dora/timer/millis/50", "queue 1, drop_oldest"):
        assert text in page


def test_names_cannot_break_out_of_the_page(dora: Dora, hello: Path) -> None:
    hello.write_text(
        "nodes:\n  - id: a\n    path: a.py\n    name: '<script>\"x\"</script>'\n"
        "    description: '\"><b>'\n"
    )
    assert dora("graph", hello.name).code == 0
    page = hello.with_name("hello-graph.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert "#quot;x#quot;" in dora("graph", "--mermaid", hello.name).out


def test_open_uses_the_browser(dora: Dora, hello: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def no_browser(url: str) -> bool:
        opened.append(url)
        return False

    monkeypatch.setattr("webbrowser.open", no_browser)
    shown = dora("graph", "--open", hello.name)
    page = hello.with_name("hello-graph.html").resolve()
    assert opened == [page.as_uri()]
    assert shown.err == "warning: no browser could be started; open hello-graph.html yourself\n"


def test_mermaid_opens_nothing(dora: Dora, hello: Path) -> None:
    assert dora("graph", "--open", "--mermaid", hello.name).code == 2
