"""Rows of the REST API have the keys of its messages."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from dora_cli.coordinator import rows
from dora_config.protocol import control, snapshot
from dora_config.protocol.runner import NodeResult

COMPLETE: list[tuple[type, type[BaseModel]]] = [
    (rows.RestartRow, control.RestartSummary),
    (rows.LinkRow, snapshot.LinkSummary),
    (rows.DataflowRow, control.DataflowSummary),
    (rows.EndedRow, control.EndedDataflow),
]
PARTIAL: list[tuple[type, type[BaseModel]]] = [
    (rows.NodeRow, snapshot.NodeSummary),
    (rows.MachineRow, snapshot.DaemonSummary),
    (rows.NodeResultRow, NodeResult),
]


@pytest.mark.parametrize(("row", "message"), COMPLETE)
def test_rows_have_all_keys_of_their_message(row: type, message: type[BaseModel]) -> None:
    assert set(row.__annotations__) == set(message.model_fields)


@pytest.mark.parametrize(("row", "message"), PARTIAL)
def test_rows_have_only_keys_of_their_message(row: type, message: type[BaseModel]) -> None:
    assert set(row.__annotations__) <= set(message.model_fields)
