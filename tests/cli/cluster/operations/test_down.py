"""`dora cluster down` of a coordinator that accepts no connection at first."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cluster.local_machine import LocalConnection

from dora_cli.cluster.machines import remote_machine
from dora_cli.cluster.operations import down
from dora_cli.cluster.ownership import reservation
from dora_cli.coordinator.errors import CoordinatorBusy, CoordinatorUnreachable
from dora_config.access import Endpoint
from dora_config.cluster.models import Cluster, Coordinator, Machine

CLUSTER = Cluster(
    coordinator=Coordinator(addr="10.0.0.1"), machines=(Machine(id="robot", host="robot"),)
)
BUSY = CoordinatorBusy("too many connections")


@pytest.mark.parametrize(
    ("second", "done"),
    [(None, True), (CoordinatorUnreachable("it was a service"), True), (BUSY, False)],
    ids=["ended", "absent", "busy"],
)
def test_a_busy_coordinator_is_ended_after_the_machines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    second: Exception | None,
    done: bool,
) -> None:
    steps: list[str] = []
    results: list[Exception | None] = [BUSY, second]

    def destroy(_: Endpoint) -> None:
        steps.append("coordinator")
        result = results.pop(0)
        if result is not None:
            raise result

    def clear(*_: object, **__: object) -> str:
        steps.append("machine")
        return "OK"

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(remote_machine, "connect", lambda target: LocalConnection(target.host))
    monkeypatch.setattr(reservation, "survey", lambda _: [])
    monkeypatch.setattr(down, "stop_service", lambda _: None)
    monkeypatch.setattr(down, "_destroy", destroy)
    monkeypatch.setattr(down, "_clear", clear)
    assert down.bring_down(Endpoint("10.0.0.1", 6013), CLUSTER, purge=False) is done
    assert steps == ["coordinator", "machine", "coordinator"]
    shown = capsys.readouterr().err
    assert "too many connections; the machines are cleared anyway" in shown
    assert ("the coordinator was not ended" in shown) is not done
