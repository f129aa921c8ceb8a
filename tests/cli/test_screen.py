"""Full-screen pages restore the terminal."""

from __future__ import annotations

import os
import signal
import sys
import termios
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = os.openpty()
    before = signal.getsignal(number)
    with os.fdopen(ours), os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        settings = termios.tcgetattr(terminal)
        with pytest.raises(SystemExit) as ended, screen.screen():
            os.kill(os.getpid(), number)
        assert ended.value.code == 128 + number
        assert termios.tcgetattr(terminal) == settings
    assert capsys.readouterr().out.endswith(screen.LEAVE)
    assert signal.getsignal(number) == before
