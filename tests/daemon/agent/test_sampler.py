"""Samples of a machine: all runners at once, without waiting long for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import anyio
import pytest

from dora_config.protocol.runner import (
    EdgeStatus,
    Refusal,
    RunnerReply,
    RunnerRequest,
    Statistics,
)
from dora_config.protocol.snapshot import MachineSample, SampleMachine
from dora_daemon.agent import sampler as module
from dora_daemon.agent.runners.registry import NotAnswered, RunnerRegistry
from dora_daemon.agent.sampler import Sampler, machine_load

ONE, TWO = (f"01a20e4b-f5a3-4858-99fe-d510d04b956{digit}" for digit in "12")
EDGE = EdgeStatus(source="a/out", target="b/in", policy="drop_oldest", bound=1)


class FakeRunners:
    def __init__(self, replies: Mapping[str, RunnerReply | str | None]) -> None:
        """By dataflow: a reply, the reason why there is none, or None: silence."""
        self._replies = replies

    def connected(self) -> list[str]:
        return list(self._replies)

    async def ask(self, dataflow_id: str, request: RunnerRequest) -> RunnerReply:
        match self._replies[dataflow_id]:
            case None:
                await anyio.sleep_forever()
                raise AssertionError
            case str(reason) | Refusal(message=reason):
                raise NotAnswered(reason)
            case reply:
                return reply


def sample(
    request: SampleMachine, replies: Mapping[str, RunnerReply | str | None]
) -> MachineSample:
    runners = cast("RunnerRegistry", FakeRunners(replies))
    return anyio.run(Sampler(runners).answer, request)


def test_all_runners_are_read() -> None:
    replies = {ONE: Statistics(edges=(EDGE,), at=1.0), TWO: Statistics(at=2.0)}
    found = sample(SampleMachine(), replies)
    assert found.parts == replies
    assert found.problems == ()


def test_only_named_dataflows_are_read() -> None:
    replies = {ONE: Statistics(), TWO: Statistics()}
    found = sample(SampleMachine(dataflows=(TWO,)), replies)
    assert [*found.parts] == [TWO]


def test_a_machine_without_runners_answers() -> None:
    found = sample(SampleMachine(), {})
    assert (found.parts, found.problems) == ({}, ())
    assert found.load.cpus > 0


def test_runners_without_counters_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUNNER_SECONDS", 0.01)
    replies = {ONE: Refusal(message="it is too old"), TWO: None, "three": "it has ended"}
    found = sample(SampleMachine(), replies)
    assert found.problems == (
        "it is too old",
        "it has ended",
        f"the runner of dataflow {TWO} has not answered for 0.01 s; it may be suspended",
    )


def test_a_silent_runner_delays_one_sample_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUNNER_SECONDS", 0.01)
    found: list[MachineSample] = []
    called: list[str] = []

    class Counted(FakeRunners):
        async def ask(self, dataflow_id: str, request: RunnerRequest) -> RunnerReply:
            called.append(dataflow_id)
            return await super().ask(dataflow_id, request)

    async def run() -> None:
        runners = cast("RunnerRegistry", Counted({ONE: Statistics(), TWO: None}))
        sampler = Sampler(runners)
        found.append(await sampler.answer(SampleMachine()))
        found.append(await sampler.answer(SampleMachine()))

    anyio.run(run)
    assert called == [ONE, TWO, ONE]
    problem = f"the runner of dataflow {TWO} has not answered for 0.01 s; it may be suspended"
    assert [one.problems for one in found] == [(problem,)] * 2


def test_further_edges_are_left_out() -> None:
    replies = {ONE: Statistics(edges=(EDGE, EDGE)), TWO: Statistics(edges=(EDGE, EDGE))}
    found = sample(SampleMachine(max_edges=3), replies)
    assert [len(part.edges) for part in found.parts.values()] == [2, 1]
    assert found.problems == (f"left out edges of dataflow {TWO}: 1",)


def test_the_load_of_a_machine_is_plausible() -> None:
    load = machine_load()
    assert load.cpu_seconds > 0
    assert 0 < load.memory_bytes < load.memory_total_bytes
