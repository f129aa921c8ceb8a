"""The group `dora cluster` as users see it: help, quickness, other names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import Dora
from support.command_tree import command_of
from support.fleets.daemons import real_fleet
from support.hostile_coordinator import check, hostile_coordinator
from support.quick import quick
from support.workspace import Workspace

from dora_cluster.plugin import CLUSTER

__all__ = ["hostile_coordinator"]


@pytest.mark.parametrize("word", ["", *CLUSTER.commands])
def test_every_command_has_help(dora: Dora, word: str) -> None:
    shown = dora("cluster", *word.split(), "-h")
    assert shown.code == 0
    assert shown.out.startswith(f"Usage: dora cluster {word}".rstrip())
    assert shown.out == dora("help", "cluster", *word.split()).out


def test_the_group_is_listed_with_the_commands_of_a_coordinator(dora: Dora) -> None:
    section = dora("--help").out.partition("\nThrough a coordinator:\n")[2].partition("\n\n")[0]
    assert "\n  cluster  Manage a cluster of machines." in section


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("cluster upp", "'up'"),
        ("cluster zzz", "zzz"),
        ("cluster up flow", "`dora cluster up` has no command 'flow'"),
    ],
)
def test_help_of_an_unknown_command_is_a_usage_error(dora: Dora, words: str, message: str) -> None:
    shown = dora("help", *words.split())
    assert (shown.code, shown.out) == (2, "")
    assert message in shown.err


def test_commands_that_ask_once_are_quick(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick("cluster", "status", "--coordinator-port", "1", code=1)
    with real_fleet(workspace, None) as fleet:
        # without an option, which keeps some commands from reading files of this machine
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(fleet.port))
        table = quick("cluster", "status")
        assert table.startswith("DAEMON ID ")
        (machine,) = map(json.loads, quick("cluster", "status", "-f", "json").splitlines())
        assert table.splitlines()[1].split()[0] == machine["daemon"]
        assert (machine["labels"], machine["connected"]) == ({}, True)


@pytest.mark.usefixtures("hostile_coordinator")
@pytest.mark.parametrize("line", ["status", "history"])
def test_answers_of_a_hostile_coordinator(dora: Dora, line: str) -> None:
    check(dora("cluster", line))


def test_options_of_dora_rs_are_accepted() -> None:
    command, _ = command_of("cluster status")
    assert command.callback is not None


def test_the_doctor_checks_a_cluster(dora: Dora, tmp_path: Path) -> None:
    (tmp_path / "cluster.yml").write_text("coordinator: {addr: 127.0.0.1}\nmachines: 3\n")
    for words in (("doctor",), ("cluster", "doctor")):
        shown = dora(*words, "cluster.yml")
        assert shown.code == 1
        assert shown.out.startswith("PASS  dora: ")
        assert "cluster.yml:2:11: " in shown.err
