"""Dataflow files of the tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

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
