"""`dora cluster down` of a coordinator that does not answer, or not for all of its daemons."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cluster.local_machine import LocalConnection

from dora_cli.coordinator.errors import CoordinatorBusy, CoordinatorLost, CoordinatorUnreachable
from dora_cluster.machines import remote_machine
from dora_cluster.operations import down
from dora_cluster.ownership import reservation
from dora_config.access import Endpoint
from dora_config.cluster.models import Cluster, Coordinator, Machine

CLUSTER = Cluster(
    coordinator=Coordinator(addr="10.0.0.1"), machines=(Machine(id="robot", host="robot"),)
)
BUSY = CoordinatorBusy("too many connections")
LOST = CoordinatorLost("it closed the connection")


@pytest.mark.parametrize("first", [BUSY, LOST], ids=["busy", "lost"])
@pytest.mark.parametrize(
    ("second", "done"),
    [(None, True), (CoordinatorUnreachable("it was a service"), True), (BUSY, False)],
    ids=["ended", "absent", "busy"],
)
def test_a_coordinator_that_does_not_answer_is_ended_after_the_machines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    first: Exception,
    second: Exception | None,
    done: bool,
) -> None:
    steps: list[str] = []
    results: list[Exception | None] = [first, second]

    def destroy(_: Endpoint) -> frozenset[str]:
        steps.append("coordinator")
        result = results.pop(0)
        if result is not None:
            raise result
        return frozenset()

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
    assert f"{first}; the machines are cleared anyway" in shown
    assert ("the coordinator was not ended" in shown) is not done


@pytest.mark.parametrize(
    ("known", "left", "named"),
    [
        (None, {"robot"}, "robot"),
        (CLUSTER, {"robot"}, None),
        (CLUSTER, {"robot", "laptop"}, "laptop"),
    ],
    ids=["without machines", "cleared", "elsewhere"],
)
def test_daemons_that_did_not_answer_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    known: Cluster | None,
    left: set[str],
    named: str | None,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(remote_machine, "connect", lambda target: LocalConnection(target.host))
    monkeypatch.setattr(reservation, "survey", lambda _: [])
    monkeypatch.setattr(down, "stop_service", lambda _: None)
    monkeypatch.setattr(down, "_destroy", lambda _: frozenset(left))
    monkeypatch.setattr(down, "_clear", lambda *_, **__: "OK")
    assert down.bring_down(Endpoint("10.0.0.1", 6013), known, purge=False) is (named is None)
    shown = capsys.readouterr().err
    assert (f"may still run: {named}; end these daemons" in shown) is (named is not None)
