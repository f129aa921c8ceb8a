"""Progress of a build on a terminal: one line per node, all output on failure."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
from pathlib import Path

import pytest
from support.dora import DORA, run_dora

pytestmark = pytest.mark.integration


def on_terminal(cwd: Path, *words: str, lines: int = 24) -> tuple[int, str]:
    """Run `dora` on a new terminal; return exit code and output."""
    ours, theirs = pty.openpty()
    written = bytearray()

    def read() -> None:
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the other end is closed
                return
            written.extend(data)

    env = {**os.environ, "TERM": "xterm", "LINES": str(lines), "COLUMNS": "60", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [DORA, *words], cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait(120)
    reader.join(30)
    os.close(ours)
    return code, written.decode()


def screen(text: str) -> list[str]:
    """Return the visible lines after all cursor movements."""
    rows: list[str] = [""]
    at = 0
    for part in re.findall(r"\x1b\[\d*[A-Z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            at += 1
            rows += [""] * (at + 1 - len(rows))
        elif part.endswith("A") and part.startswith("\x1b"):
            at -= int(part[2:-1])
        elif part == "\x1b[J":
            del rows[at + 1 :]
            rows[at] = ""
        elif part == "\r" or part.startswith("\x1b"):
            continue
        else:
            rows[at] = part
    return rows


def flow(folder: Path, **builds: str) -> None:
    nodes = [f"  - {{id: {name}, path: x.py, build: '{line}'}}" for name, line in builds.items()]
    (folder / "flow.yml").write_text("nodes:\n" + "\n".join(nodes))


def test_one_line_for_each_node(tmp_path: Path) -> None:
    flow(tmp_path, first="echo one", second="echo two")
    code, text = on_terminal(tmp_path, "build", "flow.yml")
    assert code == 0
    first, second, end, *_ = screen(text)
    assert re.fullmatch(r"first   ready    after .*s", first)
    assert re.fullmatch(r"second  ready    after .*s", second)
    assert end.startswith("build finished successfully")


def test_a_failure_shows_all_output_of_the_node(tmp_path: Path) -> None:
    flow(tmp_path, good="echo fine", bad='sh -c "seq 1 30; exit 3"')
    code, text = on_terminal(tmp_path, "build", "flow.yml")
    assert code == 1
    rows = screen(text)
    assert [row for row in rows if row.startswith("bad:   ")] == [
        f"bad:   {number}" for number in range(1, 31)
    ]
    assert "bad   failed" in rows
    assert not any("fine" in row for row in rows)


def test_more_nodes_than_lines(tmp_path: Path) -> None:
    flow(tmp_path, **{f"n{number}": "echo x" for number in range(9)})
    code, text = on_terminal(tmp_path, "build", "flow.yml", lines=5)
    assert code == 0
    rows = screen(text)
    assert sum(" ready" in row for row in rows) == 4
    assert any(row.startswith("build finished successfully") for row in rows)


def test_verbose_and_redirected_output_are_plain_lines(tmp_path: Path) -> None:
    flow(tmp_path, first="echo one")
    code, text = on_terminal(tmp_path, "build", "flow.yml", "--verbose")
    assert code == 0
    assert "first:   one\r\n" in text
    shown = run_dora("build", "flow.yml", cwd=tmp_path).succeeded()
    assert "first:   one\n" in shown.stdout
    assert "\x1b" not in shown.stdout
