"""A line for each machine, in order, whoever ends first."""

from __future__ import annotations

import pytest

from dora_cli import output
from dora_cli.cluster.machines.parallel import without_name
from dora_cli.cluster.machines.progress_lines import Lines
from dora_cli.cluster.operations.fanout import Prefixed, chosen
from dora_config import DoraError
from dora_config.cluster.models import Cluster, Coordinator, Machine


def test_lines_come_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(["a", "b", "c"]) as lines:
        lines.say(0, "working")
        lines.end(1, "OK")
        assert capsys.readouterr().out == ""
        lines.end(0, "FAILED: no\n  reason")
        assert capsys.readouterr().out == "a... FAILED: no\n  reason\nb... OK\n"
        lines.end(2, "OK")
        assert capsys.readouterr().out == "c... OK\n"


def test_a_terminal_shows_what_is_being_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "wants_colour", lambda _stream: True)
    with Lines(["a", "b"]) as lines:
        lines.say(1, "connecting")
        lines.end(1, "FAILED: no\n  reason")
        lines.end(0, "OK")
    drawn = capsys.readouterr().out.split("\x1b[2A")
    assert drawn[0] == "a... waiting\x1b[K\nb... waiting\x1b[K\n"
    assert drawn[1] == "a... waiting\x1b[K\nb... connecting\x1b[K\n"
    assert drawn[-1] == "a... OK\x1b[K\nb... FAILED: no\n  reason\x1b[K\n"


def test_output_is_cut_into_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Prefixed("gpu", 5)
    for piece in (b"on", b"e\ntw", b"o\n\nthr\xff"):
        lines.take_output(piece)
    lines.end()
    lines.say("exit code 1")
    out, err = capsys.readouterr()
    assert out == "gpu   | one\ngpu   | two\ngpu   | \ngpu   | thr�\n"
    assert err == "gpu   | exit code 1\n"


def test_half_lines_of_two_streams_are_not_mixed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Prefixed("gpu", 3)
    lines.take_output(b"all is ")
    lines.take_errors(b"wat")
    lines.take_output(b"well\nlast")
    lines.take_errors(b"ch out\nend")
    lines.end()
    said = "gpu | all is well\ngpu | watch out\ngpu | last\ngpu | end\n"
    assert capsys.readouterr().out == said


def test_machines_are_chosen_by_id() -> None:
    machines = tuple(Machine(id=name, host="h") for name in ("a", "b"))
    cluster = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=machines)
    assert chosen(cluster, ()) == machines
    assert chosen(cluster, ["b"]) == machines[1:]
    with pytest.raises(DoraError, match='no machine "c" in the cluster file; there are: a, b'):
        chosen(cluster, ["c"])


def test_a_name_is_said_once() -> None:
    assert without_name("a (u@h): broke", "a (u@h)") == "broke"
    assert without_name("b: broke", "a") == "b: broke"
