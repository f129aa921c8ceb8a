"""Work on several machines at once."""

from __future__ import annotations

import threading

import pytest
from support.cluster.local_machine import LocalConnection

from dora_cli.cluster.machines import remote_machine
from dora_cli.cluster.machines.parallel import (
    Report,
    on_machines,
    success_count,
    without_name,
)
from dora_cli.cluster.machines.remote_machine import RemoteMachine
from dora_cli.ssh import Target, Unreachable
from dora_config import DoraError
from dora_config.cluster.models import Cluster, Coordinator, Machine

MACHINES = tuple(Machine(id=name, host=name) for name in ("a", "b", "gone"))
CLUSTER = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=MACHINES)


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(target: Target) -> LocalConnection:
        if target.host == "gone":
            raise Unreachable(target.name, "no answer")
        return LocalConnection(target.host)

    monkeypatch.setattr(remote_machine, "connect", connect)


def test_failures_do_not_affect_other_machines(capsys: pytest.CaptureFixture[str]) -> None:
    together = threading.Barrier(2)

    def work(remote: RemoteMachine, report: Report) -> int:
        together.wait(60)
        if remote.machine.id == "b":
            raise DoraError("b (b): it broke")
        return 7

    done = on_machines(CLUSTER, "Testing {name} at {target}", work, describe=lambda n: f"OK ({n})")
    assert [one.result for one in done] == [7, None, None]
    assert [one.problem for one in done] == [None, "it broke", "no answer"]
    assert success_count(done) == "1/3 succeeded."
    assert capsys.readouterr().out == (
        "Testing a (a) at a... OK (7)\n"
        "Testing b (b) at b... FAILED: it broke\n"
        "Testing gone (gone) at gone... FAILED: no answer\n"
    )


def test_only_the_given_machines_are_used() -> None:
    def work(remote: RemoteMachine, report: Report) -> str:
        return remote.machine.id

    (done,) = on_machines(CLUSTER, "Testing {id}", work, machines=MACHINES[:1])
    assert done.result == "a"


def test_name_of_the_machine_is_removed_from_a_message() -> None:
    assert without_name("a (u@h): broke", "a (u@h)") == "broke"
    assert without_name("b: broke", "a") == "b: broke"
