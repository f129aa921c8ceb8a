"""Work on several machines at once."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from support.cluster.local_machine import LocalConnection

from dora_cluster.errors import Unreachable
from dora_cluster.machines import remote_machine
from dora_cluster.machines.remote_machine import (
    Connections,
    ProgressLines,
    RemoteMachine,
    Report,
    in_parallel,
    on_machines,
    success_count,
)
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_config.errors import DoraError

MACHINES = tuple(Machine(id=name, host=name) for name in ("a", "b", "gone"))
CLUSTER = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=MACHINES)


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(target: Machine) -> LocalConnection:
        if target.host == "gone":
            raise Unreachable(target.label, "no answer")
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


def test_an_error_of_standard_output_is_not_a_failure_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "standard output")

    monkeypatch.setattr(ProgressLines, "update", fail)
    monkeypatch.setattr(ProgressLines, "end", lambda *_: None)
    (done,) = on_machines(CLUSTER, "{id}", lambda *_: None, machines=MACHINES[:1])
    assert done.ok
    texts = []

    def fail_once(_lines: ProgressLines, _number: int, text: str) -> None:
        texts.append(text)
        if len(texts) == 1:
            fail()

    monkeypatch.setattr(ProgressLines, "end", fail_once)
    with pytest.raises(OSError, match="standard output"):
        on_machines(CLUSTER, "{id}", lambda *_: None, machines=MACHINES[:1])
    assert texts == ["OK"]


def test_ctrl_c_closes_connections_while_work_is_still_submitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = threading.Event()
    closed: list[bool] = []

    class InterruptedPool(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
            if arguments[-1] is MACHINES[0]:
                return super().submit(*arguments, **named)
            opened.wait(30)
            raise KeyboardInterrupt

    connections = Connections()

    def work(machine: Machine) -> None:
        with connections.open(machine) as connection:
            assert isinstance(connection, LocalConnection)
            opened.set()
            closed.append(connection.is_closed.wait(30))

    monkeypatch.setattr(remote_machine, "ThreadPoolExecutor", InterruptedPool)
    with pytest.raises(KeyboardInterrupt):
        in_parallel(connections, MACHINES[:2], work)
    assert closed == [True]
