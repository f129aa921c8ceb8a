"""`dora cluster doctor` with a machine that goes away in between: the others are still measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.coordinator import free_port

from dora_cli.cluster.decisions.preflight import Facts
from dora_cli.cluster.machines.parallel import Done
from dora_cli.cluster.operations import doctor
from dora_cli.ssh import Finished, Target, Unreachable
from dora_config.cluster.models import Cluster, Coordinator, Machine

FACTS = Facts(
    python="3.11.2",
    machine="x86_64",
    user="ubuntu",
    uid=1000,
    home="/home/ubuntu",
    state="/home/ubuntu/.local/state/dora",
    free=10 << 30,
    memory=4 << 30,
    memory_files=True,
    systemd=True,
    address="10.0.0.2",
    daemon=None,
    environment=None,
    service=False,
    user_service=False,
    dora=None,
    clock=0.0,
    trip=0.01,
)


class Link:
    """A machine that answers, and reaches whomever it pings in two milliseconds."""

    name = "somebody"

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_error: object) -> None: ...

    def close(self) -> None: ...

    def run(
        self,
        argv: Sequence[str],
        *,
        on_output: Callable[[bytes], None] | None = None,
        **_others: Any,
    ) -> Finished:
        command, arguments = argv[-2], json.loads(argv[-1])
        if command == "answer":
            assert on_output is not None
            on_output(b'{"port": 7000}\n')
            return Finished(0, '{"port": 7000}\n{}\n', "")
        pings = {target[0]: {"seconds": 0.002, "clock": 0.0} for target in arguments["targets"]}
        return Finished(0, json.dumps({"pings": pings}), "")


def connect(target: Target) -> Link:
    if target.host == "10.0.0.8":
        raise Unreachable(target.name, "no answer from 10.0.0.8 port 22 within 10 s")
    return Link()


def test_a_machine_that_went_away_is_named_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"a": "10.0.0.7", "gone": "10.0.0.8", "b": "10.0.0.9"}
    machines = tuple(Machine(id=name, host=host) for name, host in names.items())
    port = free_port()
    cluster = Cluster(coordinator=Coordinator(addr="127.0.0.1", port=port), machines=machines)
    examined = [Done(machine, doctor.Examined(FACTS, None)) for machine in machines]
    monkeypatch.setattr(doctor, "on_machines", lambda *_words: examined)
    monkeypatch.setattr(doctor, "connect", connect)
    assert not doctor.examine(cluster)
    lines = capsys.readouterr().out.splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("Data links"))) + 1 :]
    assert [line.split() for line in table[:3]] == [
        ["a", "b"],
        ["a", "-", "2.00", "ms", "+0.00", "ms"],
        ["b", "2.00", "ms", "+0.00", "ms", "-"],
    ]
    assert table[3:] == [
        "- gone (10.0.0.8): not in the table of links: no answer from 10.0.0.8 port 22 within 10 s"
    ]
