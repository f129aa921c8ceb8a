"""`dora list`: selection of ended dataflows."""

from __future__ import annotations

import pytest

from dora_cli.commands.dataflows import restarts_text, selected
from dora_config.protocol.control import DataflowStatus, DataflowSummary

HOUR = 3600.0


def row(
    uuid: str, ended_ago: float | None, name: str | None = None, restarts: int = 0
) -> DataflowSummary:
    status: DataflowStatus = "Running" if ended_ago is None else "Failed"
    return DataflowSummary(
        uuid=uuid, name=name, status=status, ended_ago=ended_ago, restarts=restarts
    )


ROWS = [row("old", HOUR + 1, "a"), row("new", HOUR - 1, "a"), row("runs", None, "b")]


@pytest.mark.parametrize(
    ("choice", "uuids"),
    [
        ({}, ["new", "runs"]),
        ({"everything": True}, ["old", "new", "runs"]),
        ({"status": "failed"}, ["old", "new"]),
        ({"status": "running"}, ["runs"]),
        ({"name": "a"}, ["new"]),
        ({"name": "a", "everything": True}, ["old", "new"]),
    ],
)
def test_ended_dataflows_are_listed_for_an_hour(
    choice: dict[str, object], uuids: list[str]
) -> None:
    options: dict[str, object] = {"status": None, "name": None, "everything": False, **choice}
    assert [one.uuid for one in selected(ROWS, **options)] == uuids  # type: ignore[arg-type]


def test_an_ended_dataflow_is_not_listed_beside_a_later_one_of_its_name() -> None:
    rows = [row("failed", 9.0, "a"), row("unnamed", 8.0), row("other", 7.0), row("runs", None, "a")]
    shown = selected(rows, status=None, name=None, everything=False)
    assert [one.uuid for one in shown] == ["unnamed", "other", "runs"]


def test_restarts_of_an_ended_dataflow_are_shown_without_a_cause() -> None:
    assert restarts_text(row("old", 5.0)) == ""
    assert restarts_text(row("old", 5.0, restarts=6)) == "restarted 6 times"
