"""`dora status` and `dora check` with and without a coordinator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import Dora
from support.fleets.daemons import real_fleet
from support.workspace import Workspace


def test_without_a_coordinator(dora: Dora) -> None:
    shown = dora("status", "--format", "json", "--coordinator-port", "1")
    assert shown.code == 1
    assert json.loads(shown.out) == {
        "coordinator": {"status": "not running"},
        "daemon": {"status": "unknown"},
        "active_dataflows": None,
    }


def test_a_dataflow_file_is_checked_as_well(dora: Dora, hello: Path) -> None:
    words = ("check", "--coordinator-port", "1", "--dataflow", hello.name)
    assert "PASS  dataflow: hello.yml: 2 nodes" in dora(*words).out.splitlines()
    hello.write_text("nodes:\n  - id: a\n    pth: x\n")
    assert "FAIL  dataflow: hello.yml:3:5: " in dora(*words).out
    shown = dora(*words, "--format", "json")
    assert json.loads(shown.out)["active_dataflows"] is None
    assert "hello.yml:3:5: " in shown.err


@pytest.mark.integration
def test_a_bad_dataflow_file_fails(workspace: Workspace) -> None:
    bad = workspace.file("bad.yml", "nodes: [{id: a}]\n")
    with real_fleet(workspace, None) as fleet:
        shown = fleet.dora("status", "--format", "json")
        assert json.loads(shown.stdout) == {
            "coordinator": {"status": "running", "address": f"127.0.0.1:{fleet.port}"},
            "daemon": {"status": "running"},
            "active_dataflows": 0,
        }
        assert "bad.yml" in fleet.dora("status", "--dataflow", str(bad), code=1).stdout
