"""Events of a runner: in memory, and in the file beside the logs."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.runner.histories import node_ended

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import OutputSource, TimerSource
from dora_config.history.entries import (
    EdgeEnds,
    HistoryEntry,
    RunBegan,
    RunEnded,
    RunnerWarned,
    split_dropped,
)
from dora_config.history.file import read_history
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner_events import (
    DataflowFinished,
    DataflowResult,
    NodeFailed,
    NodeResult,
    RunnerState,
)
from dora_daemon.out_dir import history_file
from dora_daemon.runner.logs.history import MAX_LINES, KeptHistory, beginning

UUID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"


def plan(folder: Path, **fields: object) -> RunPlan:
    camera = ResolvedNode(
        id="camera", path="c.py", inputs={"tick": ResolvedInput(source=TimerSource(interval_ns=1))}
    )
    reader = ResolvedInput(source=OutputSource(node="camera", output="image"))
    plot = ResolvedNode(id="plot", path="p.py", inputs={"image": reader})
    values = {
        "dataflow_id": UUID,
        "name": "demo",
        "resolved": ResolvedDataflow(nodes=(camera, plot)),
        "working_dir": str(folder),
    }
    return RunPlan.model_validate({**values, **fields})


def test_the_file_is_named_by_the_machine(tmp_path: Path) -> None:
    folder = tmp_path / "out" / UUID
    assert history_file(plan(tmp_path)) == folder / "history.jsonl"
    assert history_file(plan(tmp_path, machine_id="robot")) == folder / "history_robot.jsonl"


def test_the_first_event_has_nodes_and_edges(tmp_path: Path) -> None:
    began = beginning(plan(tmp_path))
    assert (began.name, began.nodes) == ("demo", ("camera", "plot"))
    assert began.edges == (EdgeEnds(source="camera/image", target="plot/image"),)


def test_events_are_written_as_they_happen_and_others_ignored(tmp_path: Path) -> None:
    file = history_file(plan(tmp_path))
    times = iter([1.0, 2.0, 3.0])
    history = KeptHistory(file, RunBegan(pid=7), clock=lambda: next(times))
    result = NodeResult(node="camera", outcome="failed", stderr_tail=("x" * 1000,) * 100)
    history.note(NodeFailed(result=result))
    history.note(RunnerState(phase="ready"))
    history.note(DataflowFinished(result=DataflowResult(dataflow_id=UUID, nodes=(result,))))
    entries, _ = split_dropped(read_history(file))
    assert [entry.at for entry in entries] == [1.0, 2.0, 3.0]
    assert entries[0].event == RunBegan(pid=7)
    assert isinstance(entries[1].event, NodeFailed)
    assert len(entries[1].event.result.stderr_tail) == 20
    assert entries[2].event == RunEnded(ok=False)
    assert history.entries() == entries


def test_a_recovered_run_continues_the_file_of_the_former_one(tmp_path: Path) -> None:
    file = history_file(plan(tmp_path))
    KeptHistory(file, RunBegan(pid=1))
    again = KeptHistory(file, RunBegan(pid=2, recovered="its runner ended"))
    pids = [entry.event.pid for entry in again.entries() if isinstance(entry.event, RunBegan)]
    assert pids == [1, 2]
    assert read_history(file) == list(again.entries())


def test_a_crash_loop_does_not_grow_the_file(tmp_path: Path) -> None:
    file = history_file(plan(tmp_path))
    history = KeptHistory(file, RunBegan(pid=1))
    for number in range(2 * MAX_LINES):
        history.add(node_ended(0.0, f"node {number}").event)
    entries, _ = split_dropped(read_history(file))
    assert entries[0].event == RunBegan(pid=1)
    assert len(entries) <= 2 * MAX_LINES
    assert history.dropped > 0
    again = KeptHistory(file, RunBegan(pid=2, recovered="its runner was killed"))
    assert again.dropped == history.dropped + 1  # it has one event more


def test_a_file_that_cannot_be_written_is_an_event(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("not a folder")
    history = KeptHistory(history_file(plan(tmp_path)), RunBegan(pid=1))
    history.add(RunEnded(ok=True))
    events = [entry.event for entry in history.entries()]
    assert [type(event) for event in events] == [RunBegan, RunnerWarned, RunEnded]
    assert isinstance(events[1], RunnerWarned)
    assert "cannot write" in events[1].text


@pytest.mark.parametrize("text", ["", "torn\n"])
def test_an_unreadable_file_does_not_stop_a_recovered_run(tmp_path: Path, text: str) -> None:
    file = history_file(plan(tmp_path))
    file.parent.mkdir(parents=True)
    file.write_text(text)
    began = RunBegan(pid=2, recovered="again")
    history = KeptHistory(file, began, clock=lambda: 1.0)
    assert history.entries() == (HistoryEntry(at=1.0, event=began),)


def test_the_file_stays_bounded_over_recoveries(tmp_path: Path) -> None:
    file = history_file(plan(tmp_path))
    for recovery in range(4):
        history = KeptHistory(file, RunBegan(pid=7, recovered=str(recovery)))
        for _ in range(MAX_LINES // 3):
            history.add(node_ended(0, "camera").event)
    assert len(file.read_bytes().splitlines()) < MAX_LINES
