"""Copies of the examples."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

CopyExample = Callable[[str], Path]


@pytest.fixture
def copy_example(tmp_path: Path) -> CopyExample:
    """Return a function that copies an example aside and returns its dataflow file."""

    def copy(name: str) -> Path:
        ignored = shutil.ignore_patterns("out", "__pycache__", ".dora")
        shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=ignored)
        return tmp_path / name / "dataflow.yml"

    return copy
