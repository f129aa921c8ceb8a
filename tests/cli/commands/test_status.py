"""`dora status` and `dora check` with and without a coordinator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Dora
from support.fleets.daemons import real_fleet
from support.workspace import Workspace

from dora_cli.commands import coordinator as coordinator_commands
from dora_cli.coordinator.errors import CoordinatorBusy, CoordinatorLost
from dora_config.errors import DoraError
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.reports import ClusterReport, ClusterStatus, DaemonSummary


def test_without_a_coordinator(dora: Dora) -> None:
    shown = dora("status", "--format", "json", "--coordinator-port", "1")
    assert shown.code == 1
    assert json.loads(shown.out) == {
        "coordinator": {"status": "not running"},
        "daemon": {"status": "unknown"},
        "active_dataflows": None,
    }
    assert "cannot connect to the coordinator at 127.0.0.1:1 " in shown.err


def machine(name: str, **values: Any) -> DaemonSummary:
    known = {"machine_id": None, "address": "", "release": "1.2.3", "heartbeat_age": 0.0}
    return DaemonSummary(daemon=name, **{"connected": True, **known, **values})


class Coordinator:
    """Instead of the connection to a coordinator with these machines."""

    def __init__(
        self,
        *machines: DaemonSummary,
        problem: DoraError | None = None,
        differences: tuple[str, ...] = (),
    ) -> None:
        self._machines = machines
        self._differences = differences
        self._problem = problem

    def __enter__(self) -> Coordinator:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def request(self, request: ClusterStatus) -> ClusterReport:
        if self._problem is not None:
            raise self._problem
        version = ProgramVersion(program="coordinator", release="1.2.3")
        return ClusterReport(
            coordinator=version,
            machines=self._machines,
            active_dataflows=3,
            differences=self._differences,
        )


def test_daemons_that_are_not_connected_are_named(
    dora: Dora, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = [
        machine("a"),
        machine("b", connected=False),
        machine("c", connected=False),
        machine("d", connected=False, ended=True),
    ]
    monkeypatch.setattr(coordinator_commands, "connect", lambda *_: Coordinator(*machines))
    shown = dora("status")
    assert shown.code == 0
    assert "Daemons: 1 connected; not connected: b, c" in shown.out
    monkeypatch.setattr(coordinator_commands, "connect", lambda *_: Coordinator(*machines[1:]))
    shown = dora("status")
    assert shown.code == 1
    assert "Daemons: none connected; not connected: b, c" in shown.out


@pytest.mark.parametrize(
    "problem",
    [CoordinatorBusy("try again in a minute"), CoordinatorLost("did not answer within 30 s")],
    ids=["busy", "lost"],
)
def test_a_coordinator_that_gives_no_report(
    dora: Dora, monkeypatch: pytest.MonkeyPatch, problem: DoraError
) -> None:
    monkeypatch.setattr(coordinator_commands, "connect", lambda *_: Coordinator(problem=problem))
    shown = dora("status", "--format", "json")
    assert shown.code == 1
    assert json.loads(shown.out)["coordinator"] == {"status": "unknown"}
    assert str(problem) in shown.err
    assert "Coordinator: gives no report" in dora("status").out


@pytest.mark.parametrize("output_format", ["table", "json"])
def test_warnings_are_printed_in_each_format(
    dora: Dora, monkeypatch: pytest.MonkeyPatch, output_format: str
) -> None:
    coordinator = Coordinator(machine("a", clock_offset=7.0, plain_links=True))
    monkeypatch.setattr(coordinator_commands, "connect", lambda *_: coordinator)
    shown = dora("status", "--format", output_format)
    assert 'warning: "a": ' in shown.err
    assert 'warning: links: plain: messages of "a"' in shown.err


def test_what_differs_is_named_with_the_command_that_helps(
    dora: Dora, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'dataflow "app": node "sink" has failed; `dora node restart sink` starts it again'
    coordinator = Coordinator(machine("a"), differences=(text,))
    monkeypatch.setattr(coordinator_commands, "connect", lambda *_: coordinator)
    assert f"Active dataflows: 3\n  {text}\n" in dora("status").out


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
