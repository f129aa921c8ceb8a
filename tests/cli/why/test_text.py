"""Text of an explanation."""

from __future__ import annotations

from datetime import UTC, datetime

from dora_cli.why.text import MAX_EVENTS, explanation_lines
from dora_config.history.explanation import Cause, Explanation, FlowProblem, Occurrence

NOW = datetime(2026, 8, 21, 12, 0, tzinfo=UTC).timestamp()


def occurrence(ago: float, text: str, **fields: object) -> Occurrence:
    return Occurrence.model_validate({"at": NOW - ago, "text": text, **fields})


def shown(**fields: object) -> list[str]:
    values = {"status": "Degraded", "now": NOW, "summary": "all is well", **fields}
    return list(explanation_lines(Explanation.model_validate(values), UTC))


def test_the_whole_text() -> None:
    text = 'node "camera" on machine "robot" exited with code 1'
    lines = shown(
        uuid="01a20e4b-f5a3-4858-99fe-d510d04b9561",
        name="demo",
        summary=text,
        cause=Cause(
            at=NOW - 65.5, machine="robot", node="camera", text=text, stderr=("Traceback", "boom")
        ),
        timeline=(
            occurrence(90000, "started", machine="robot"),
            occurrence(
                65.5, "exited\nwith code 1", machine="robot", node="camera", problem=True,
                role="cause",
            ),
            occurrence(60, "lost its input", machine="arm", node="plot", problem=True),
            occurrence(59, "runs on all machines"),
        ),
        findings=(
            FlowProblem(kind="silent", text='node "a" has sent nothing', inputs=("b/x", "c/y")),
        ),
        waits_for=("machine x",),
        notes=("one\ntwo",),
    )  # fmt: skip
    assert lines == [
        'Dataflow "demo" (01a20e4b-f5a3-4858-99fe-d510d04b9561): Degraded',
        "",
        "First cause, at 11:58:54.500 (1 min ago)",
        '  node "camera" on machine "robot" exited with code 1',
        "  ┌─ stderr",
        "  │ Traceback",
        "  │ boom",
        "  └─",
        "",
        "Timeline",
        "     TIME                     MACHINE  NODE    EVENT",
        "     2026-08-20 11:00:00.000  robot            started",
        "  >  11:58:54.500             robot    camera  exited",
        "  !  11:59:00.000             arm      plot    lost its input",
        "     11:59:01.000                              runs on all machines",
        "",
        "Flow of messages",
        '  node "a" has sent nothing; inputs without messages: b/x, c/y',
        "",
        "Now",
        "  machine x",
        "",
        "Notes",
        "  one",
        "    two",
    ]


def test_without_trouble() -> None:
    assert shown(name="demo") == ['Dataflow "demo": Degraded', "  all is well"]
    assert shown(status="No dataflows")[0] == "Cluster: No dataflows"


def test_a_crash_loop_is_folded() -> None:
    loop = [
        one
        for count in range(1, 21)
        for one in (
            occurrence(500 - count, f"exited; restart {count}", node="a", problem=True),
            occurrence(500 - count, f"runs again after restart {count}", node="a"),
        )
    ]
    loop[0] = loop[0].model_copy(update={"role": "cause"})
    events = [line.split("  ")[-1].strip() for line in shown(timeline=tuple(loop))[5:]]
    assert events == [
        "exited; restart 1",
        "runs again after restart 1",
        '... 18 more events of node "a" like the one before',
        '... 18 more events of node "a" like the one before',
        "exited; restart 20",
        "runs again after restart 20",
    ]


def test_equal_events_are_folded_whatever_their_numbers_and_the_cause_is_shown() -> None:
    loop = [occurrence(500 - n, f"exited; restart {n}", node="a") for n in (1, 20, 300, 4000, 5, 6)]
    loop[2] = loop[2].model_copy(update={"role": "cause"})
    events = [line.split("  ")[-1].strip() for line in shown(timeline=tuple(loop))[5:]]
    assert events == [
        "exited; restart 1",
        '... 3 more events of node "a" like the one before',
        "exited; restart 300",
        "exited; restart 6",
    ]


def test_the_cause_alone_does_not_count_as_left_out() -> None:
    events = [occurrence(500 - n, chr(ord("A") + n)) for n in range(MAX_EVENTS + 1)]
    events[0] = events[0].model_copy(update={"role": "cause"})
    lines = shown(timeline=tuple(events))[5:]
    assert len(lines) == MAX_EVENTS + 1
    assert lines[0].startswith("  >")


def test_a_long_timeline_keeps_the_cause_and_the_end() -> None:
    names = [chr(ord("a") + number // 26) + chr(ord("a") + number % 26) for number in range(100)]
    events = [occurrence(500 - n, name) for n, name in enumerate(names)]
    events[3] = events[3].model_copy(update={"role": "cause", "problem": True})
    lines = shown(timeline=tuple(events))[5:]
    assert len(lines) == MAX_EVENTS + 2
    assert lines[0].strip() == f"... {100 - MAX_EVENTS - 1} earlier events; --format json has all"
    assert lines[1].startswith("  >")
    assert lines[-1].endswith(names[-1])
