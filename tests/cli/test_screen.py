"""Full-screen pages restore the terminal."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import pytest

from dora_cli import output, screen
from dora_cli.errors import CommandFailed


def test_remarks_appear_after_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(ours), os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with suppress(CommandFailed), screen.screen() as page:
            page.show(["line"])
            output.warn("queue is full")
            assert capsys.readouterr().err == ""
            raise CommandFailed
        out, err = capsys.readouterr()
        assert out.endswith(screen.LEAVE)
        assert err == "warning: queue is full\n"
        output.remark("at once")
        assert capsys.readouterr().err == "at once\n"
