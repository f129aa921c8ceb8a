"""The table of data links when a machine becomes unreachable during the diagnosis."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.cluster.machine_facts import machine_facts

from dora_cluster.connection import FinishedCommand
from dora_cluster.errors import ConnectionLost, Unreachable
from dora_cluster.machines import remote_machine
from dora_cluster.operations import doctor
from dora_cluster.operations.doctor import measure_pairs
from dora_cluster.operations.steps import Findings
from dora_cluster.remote_call import program
from dora_cluster.remote_program.protocol import decode_request, encode_result
from dora_config.cluster.models import Cluster, Coordinator, Machine


class PingedMachine:
    """A machine that reaches the others in two milliseconds."""

    name = "any"

    def __enter__(self) -> PingedMachine:
        return self

    def __exit__(self, *_error: object) -> None: ...

    def close(self) -> None: ...

    def run(
        self,
        _argv: Sequence[str],
        *,
        stdin: bytes,
        on_output: Callable[[bytes], None] | None = None,
        **_others: Any,
    ) -> FinishedCommand:
        command, arguments = decode_request(stdin.removeprefix(program()))
        if command == "network.answer":
            assert on_output is not None
            on_output(encode_result({"port": 7000}))
            return FinishedCommand(0, encode_result({}).decode(), "")
        pings = {target[0]: {"seconds": 0.002, "clock": 0.0} for target in arguments["targets"]}
        return FinishedCommand(0, encode_result({"pings": pings}).decode(), "")


def connect(target: Machine) -> PingedMachine:
    if target.host == "10.0.0.8":
        raise Unreachable(target.label, "no answer from 10.0.0.8 port 22 within 10 s")
    return PingedMachine()


def test_other_machines_are_measured_without_the_unreachable_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"a": "10.0.0.7", "gone": "10.0.0.8", "b": "10.0.0.9"}
    machines = tuple(Machine(id=name, host=host) for name, host in names.items())
    cluster = Cluster(coordinator=Coordinator(addr="127.0.0.1"), machines=machines)
    monkeypatch.setattr(remote_machine, "connect", connect)
    findings = Findings()
    measure_pairs(cluster, dict.fromkeys(names, machine_facts()), findings)
    title, *table = capsys.readouterr().out.splitlines()
    assert title.startswith("Data links")
    assert [line.split() for line in table] == [
        ["a", "b"],
        ["a", "-", "2.00", "ms", "+0.00", "ms"],
        ["b", "2.00", "ms", "+0.00", "ms", "-"],
    ]
    assert findings.problems == [
        "gone (10.0.0.8): missing in the table of data links: "
        "no answer from 10.0.0.8 port 22 within 10 s"
    ]


class ClosableMachine(PingedMachine):
    """Its connection can be closed by another thread."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def close(self) -> None:
        self._closed.set()


class StalledMachine(ClosableMachine):
    """Its pings last until its connection is closed; those of the first one cause Ctrl-C."""

    def __init__(self, target: Machine) -> None:
        super().__init__()
        self._is_first = target.host == "10.0.0.7"

    def run(
        self,
        _argv: Sequence[str],
        *,
        stdin: bytes,
        on_output: Callable[[bytes], None] | None = None,
        **_others: Any,
    ) -> FinishedCommand:
        command, _ = decode_request(stdin.removeprefix(program()))
        if command == "network.answer":
            return super().run(_argv, stdin=stdin, on_output=on_output)
        if self._is_first:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert self._closed.wait(60)
        raise ConnectionLost("any", "the connection broke")


def test_ctrl_c_ends_the_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = (Machine(id="a", host="10.0.0.7"), Machine(id="b", host="10.0.0.9"))
    cluster = Cluster(coordinator=Coordinator(addr="127.0.0.1"), machines=machines)
    monkeypatch.setattr(remote_machine, "connect", StalledMachine)
    facts = {one.id: machine_facts() for one in machines}
    with pytest.raises(KeyboardInterrupt):
        measure_pairs(cluster, facts, Findings())


class PrintingMachine(PingedMachine):
    """Its login shell prints a line before the reply, which arrives in two pieces."""

    def run(
        self,
        _argv: Sequence[str],
        *,
        stdin: bytes,
        on_output: Callable[[bytes], None] | None = None,
        **_others: Any,
    ) -> FinishedCommand:
        if on_output is not None:
            on_output(b"Welcome to robot\n")
            reply = encode_result({"port": 7000})
            on_output(reply[:9])
            on_output(reply[9:])
            return FinishedCommand(0, encode_result({}).decode(), "")
        return super().run(_argv, stdin=stdin)


class SilentMachine(ClosableMachine):
    """It opens no port until its connection is closed."""

    def run(
        self,
        _argv: Sequence[str],
        *,
        stdin: bytes,
        on_output: Callable[[bytes], None] | None = None,
        **_others: Any,
    ) -> FinishedCommand:
        if on_output is None:
            return super().run(_argv, stdin=stdin)
        assert self._closed.wait(60)
        raise ConnectionLost("any", "the connection broke")


def test_a_silent_machine_does_not_affect_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = {"10.0.0.7": PrintingMachine, "10.0.0.8": SilentMachine, "10.0.0.9": PrintingMachine}
    machines = tuple(
        Machine(id=name, host=host) for name, host in zip(("a", "b", "c"), kinds, strict=True)
    )
    cluster = Cluster(coordinator=Coordinator(addr="127.0.0.1"), machines=machines)
    monkeypatch.setattr(remote_machine, "connect", lambda target: kinds[target.host]())
    monkeypatch.setattr(doctor, "START_TIMEOUT", 0.2)
    findings = Findings()
    measure_pairs(cluster, {one.id: machine_facts() for one in machines}, findings)
    table = capsys.readouterr().out.splitlines()[2:]
    assert [line.split().count("FAILED") for line in table] == [1, 0, 1]
    assert findings.problems == [
        f"{source} -> b: b did not open a data port within 0.2 s" for source in ("a", "c")
    ]
