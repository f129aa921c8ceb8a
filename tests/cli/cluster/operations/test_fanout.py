"""Output of several machines at once, and the choice of machines."""

from __future__ import annotations

import pytest

from dora_cli.cluster.operations.fanout import PrefixedLines, select_machines
from dora_config import DoraError
from dora_config.cluster.models import Cluster, Coordinator, Machine


def test_output_is_cut_into_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = PrefixedLines("gpu", 5)
    for piece in (b"on", b"e\ntw", b"o\n\nthr\xff"):
        lines.take_output(piece)
    lines.end()
    lines.remark("exit code 1")
    out, err = capsys.readouterr()
    assert out == "gpu   | one\ngpu   | two\ngpu   | \ngpu   | thr\ufffd\n"
    assert err == "gpu   | exit code 1\n"


def test_unfinished_lines_of_two_streams_are_not_mixed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = PrefixedLines("gpu", 3)
    lines.take_output(b"all is ")
    lines.take_errors(b"wat")
    lines.take_output(b"well\nlast")
    lines.take_errors(b"ch out\nend")
    lines.end()
    expected = "gpu | all is well\ngpu | watch out\ngpu | last\ngpu | end\n"
    assert capsys.readouterr().out == expected


def test_machines_are_selected_by_id() -> None:
    machines = tuple(Machine(id=name, host="h") for name in ("a", "b"))
    cluster = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=machines)
    assert select_machines(cluster, ()) == machines
    assert select_machines(cluster, ["b"]) == machines[1:]
    with pytest.raises(
        DoraError, match='no machine "c" in the cluster file; its machines are: a, b'
    ):
        select_machines(cluster, ["c"])
