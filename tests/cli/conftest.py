"""The command line in this process, and dataflow files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dora_cli.main import main


@dataclass(frozen=True)
class Printed:
    """Exit code and output of one command."""

    code: int
    out: str
    err: str


Dora = Callable[..., Printed]


@pytest.fixture
def dora(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Dora:
    """Run `dora WORDS` in a temporary folder; return its output."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Printed:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Printed(code, out, err)

    return run


HELLO = """\
nodes:
  - id: camera
    path: camera.py
    inputs:
      tick: dora/timer/millis/50
    outputs: [image]
  - id: plot
    path: plot.py
    inputs:
      picture: camera/image
      image: {source: camera/image, queue_size: 1}
"""


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """A good dataflow file whose nodes exist."""
    for name in ("camera", "plot"):
        (tmp_path / f"{name}.py").write_text("")
    path = tmp_path / "hello.yml"
    path.write_text(HELLO)
    return path
