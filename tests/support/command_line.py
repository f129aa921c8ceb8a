"""The command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


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
    from dora_cli.main import main  # not installed with only a node API

    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Printed:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Printed(code, out, err)

    return run
