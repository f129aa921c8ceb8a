"""Interrupts of commands that change running dataflows."""

from __future__ import annotations

import pytest

from dora_cli.errors import CommandFailed
from dora_cli.live.sending import reporting_interrupt


def test_an_interrupt_reports_that_the_change_is_completed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(CommandFailed) as failed, reporting_interrupt():
        raise KeyboardInterrupt
    assert failed.value.exit_code == 130
    assert "`dora node list` shows the nodes" in capsys.readouterr().err
