"""Comparison of a fleet file with what runs."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import create_autospec

import pytest

from dora_cli.coordinator.client import CoordinatorClient
from dora_cluster.commands import fleet
from dora_config.protocol.fleet import CopyDifference, FleetComparison

FILE = """dataflows:
  drive: {file: drive.yml, machines: {labels: {kind: rover}}}
  lift: {file: drive.yml, machines: {labels: {kind: truk, site: a}}}
"""


def test_labels_that_no_machine_has_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "drive.yml").write_text("nodes: [{id: camera, path: camera}]")
    (tmp_path / "fleet.yml").write_text(FILE)
    client = create_autospec(CoordinatorClient, instance=True)
    client.request.return_value = FleetComparison(
        copies=(
            CopyDifference(name="drive@a", machine="a", action="equal"),
            CopyDifference(name="lift@b", machine="b", action="stop"),
        ),
        machines=("a", "b"),
        generation=1,
    )
    fleet.compare(client, fleet.read_fleet(tmp_path / "fleet.yml"), ())
    assert capsys.readouterr().err == (
        "warning: dataflow lift: no machine has the labels kind=truk, site=a\n"
    )
