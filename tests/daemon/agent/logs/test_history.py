"""Answers to requests for the events of a part."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import anyio
import pytest
from support.runner.histories import failed
from support.simulation.fleets import dataflow

from dora_config.history.file import HistoryFile
from dora_config.protocol.daemon import PartHistory
from dora_config.protocol.runner import (
    GetHistory,
    Refusal,
    RunnerHistory,
    RunnerReply,
    RunnerRequest,
)
from dora_daemon.agent.logs import history as module
from dora_daemon.agent.logs.history import read_part_history
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.runners.registry import NotAnswered, RunnerRegistry

ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
ENTRY = failed(1.5, "camera")


class SimulatedRunner:
    """Answers with a reply, with a problem, or (both None) not at all."""

    def __init__(self, reply: RunnerReply | None = None, problem: str | None = None) -> None:
        self._reply = reply
        self._problem = problem

    async def ask(self, dataflow_id: str, request: RunnerRequest) -> RunnerReply:
        assert isinstance(request, GetHistory)
        if self._problem is not None:
            raise NotAnswered(self._problem)
        if isinstance(self._reply, Refusal):
            raise NotAnswered(self._reply.message)
        if self._reply is None:
            await anyio.sleep_forever()
        assert self._reply is not None
        return self._reply


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., PartHistory]:
    path = tmp_path / "history.jsonl"
    HistoryFile(path).append(ENTRY)
    record = PartRecord(
        dataflow_id=ID, attempt=1, spec=dataflow(camera="robot"), history_file=str(path)
    )

    def ask(runner: SimulatedRunner, *, live: bool = True, missing: bool = False) -> PartHistory:
        if missing:
            path.unlink()
        runners = cast("RunnerRegistry", runner)
        answer = anyio.run(partial(read_part_history, runners, record, live=live))
        assert answer.folder == str(tmp_path)
        assert answer.free_bytes is not None
        return answer

    return ask


def test_a_runner_answers_from_memory(ask: Callable[..., PartHistory]) -> None:
    reply = RunnerHistory(entries=(failed(2.0, "plot"),), dropped=3)
    answer = ask(SimulatedRunner(reply), missing=True)
    assert (answer.history, answer.problem) == (reply, None)


def test_after_the_end_of_the_runner_the_file_is_read(ask: Callable[..., PartHistory]) -> None:
    answer = ask(SimulatedRunner(), live=False)
    assert (answer.history.entries, answer.problem) == ((ENTRY,), None)
    problem = ask(SimulatedRunner(), live=False, missing=True).problem
    assert problem is not None
    assert problem.endswith("history.jsonl: No such file or directory")


@pytest.mark.parametrize(
    ("runner", "problem"),
    [
        (SimulatedRunner(problem="no runner"), "no runner"),
        (SimulatedRunner(Refusal(message='request "get_history" is not supported')), None),
        (SimulatedRunner(), "the runner has not answered for 0.01 s"),
    ],
)
def test_the_file_stands_in_for_a_runner_that_does_not_answer(
    ask: Callable[..., PartHistory],
    monkeypatch: pytest.MonkeyPatch,
    runner: SimulatedRunner,
    problem: str | None,
) -> None:
    monkeypatch.setattr(module, "RUNNER_SECONDS", 0.01)
    answer = ask(runner)
    assert answer.history.entries == (ENTRY,)
    assert answer.problem == (problem or 'request "get_history" is not supported')


def test_both_problems_are_reported(ask: Callable[..., PartHistory]) -> None:
    problem = ask(SimulatedRunner(problem="no runner"), missing=True).problem
    assert problem is not None
    assert problem.startswith("no runner; cannot read ")
