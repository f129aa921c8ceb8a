"""Words of dora-rs for recordings, and text of a hostile coordinator."""

from __future__ import annotations

import pytest
from support.command_line import Dora
from support.command_tree import all_lines, command_of
from support.hostile_coordinator import check, hostile_coordinator

from dora_recordings.commands.record import RecordCommand

__all__ = ["hostile_coordinator"]


@pytest.mark.usefixtures("hostile_coordinator")
def test_answers_of_a_hostile_coordinator(dora: Dora) -> None:
    check(dora("recording", "list"))


def test_record_fetch_is_a_hidden_name() -> None:
    assert "record fetch" not in all_lines()
    assert command_of("record fetch")[0].name == "fetch"


@pytest.mark.parametrize(("command", "option"), RecordCommand.unsupported)
def test_options_that_do_not_exist_name_a_replacement(
    dora: Dora, command: str, option: str
) -> None:
    for words in ((option, "x"), (f"{option}=x",)):
        shown = dora(command, "flow.yml", *words)
        assert (shown.code, shown.out) == (2, "")
        assert RecordCommand.unsupported[command, option] in shown.err
