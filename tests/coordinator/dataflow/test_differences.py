"""What differs between records and reports: a table of all kinds, and of what is no difference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dora_config.protocol.daemon import PartReport
from dora_config.protocol.links import LinkReport, PeerReport
from dora_config.protocol.runner import NodeStatus
from dora_coordinator.dataflow.differences import (
    RecordedDataflow,
    RecordedPart,
    ReportedMachine,
    Wanted,
    differences,
)
from dora_coordinator.state.records import PartState

ID = "996ad860-2a9a-504f-8861-aeafd0b2ae29"
RUNNING, MISSING, ENDED = PartState.RUNNING, PartState.MISSING, PartState.ENDED
PREPARING, PREPARED = PartState.PREPARING, PartState.PREPARED
NOW = 100.0


def part(**fields: Any) -> RecordedPart:
    return RecordedPart(
        **{"machine": "robot", "nodes": ("camera",), "state": RUNNING, "attempt": 2, **fields}
    )


def report(phase: str = "running", **fields: Any) -> PartReport:
    facts = {"dataflow_id": ID, "attempt": 2, "phase": phase, "changes": 1, **fields}
    return PartReport.model_validate(facts)


def machine(*parts: PartReport, **fields: Any) -> ReportedMachine:
    return ReportedMachine(connected=True, parts={one.dataflow_id: one for one in parts}, **fields)


def found(
    *parts: RecordedPart,
    wanted: Wanted = "runs",
    reported: dict[str, ReportedMachine],
    unlinked: tuple[tuple[str, str, str], ...] = (),
) -> list[tuple[str, str, str]]:
    dataflow = RecordedDataflow(ID, "app", wanted, 1, parts, unlinked)
    return [one.key for one in differences([dataflow], reported, NOW)]


def link(run_id: str, **peers: str) -> LinkReport:
    reports = tuple(PeerReport(machine=name, run_id=run) for name, run in peers.items())
    return LinkReport(run_id=run_id, endpoints=("10.0.0.1:7450",), peers=reports)


OFF = ReportedMachine(connected=False, away_since=40.0)
FAILED_NODE = {ID: (NodeStatus(node="camera", status="Failed", error="exited with code 1"),)}


@pytest.mark.parametrize(
    ("recorded", "wanted", "robot", "kinds"),
    [
        (part(), "runs", machine(report()), []),
        (part(state=PREPARING), "starts", machine(), ["unprepared"]),
        (part(state=PREPARING), "starts", machine(report("lost")), ["unprepared"]),
        (part(state=PREPARING), "starts", machine(report(attempt=1)), ["unprepared"]),
        (part(state=PREPARING), "starts", machine(report("preparing")), ["starting"]),
        (part(state=PREPARED), "starts", machine(report("prepared")), []),
        (part(state=PREPARING), "starts", machine(report("prepared")), ["unnoticed"]),
        (part(state=PREPARED), "starts", machine(report("ended")), ["unnoticed"]),
        (part(state=PREPARED), "starts", machine(), ["unreported"]),
        (part(state=PREPARED), "starts", OFF, ["away"]),
        (part(), "runs", OFF, ["away"]),
        (part(), "stops", OFF, []),
        (part(state=ENDED), "runs", OFF, []),
        (part(), "runs", machine(), ["unreported"]),
        (part(), "runs", machine(report("ended")), ["unnoticed"]),
        (part(), "runs", machine(report("ended", attempt=1)), ["unreported"]),
        (part(state=PREPARING), "runs", machine(report()), ["unnoticed"]),
        (part(), "runs", machine(report("preparing")), ["unnoticed"]),
        (part(), "runs", machine(report("lost")), ["unreported"]),
        (part(), "runs", machine(report("lost", attempt=1)), []),
        (part(state=PREPARING), "runs", machine(report("lost", attempt=1)), ["unprepared"]),
        (part(state=PREPARING), "runs", machine(), ["unprepared"]),
        (part(state=PREPARING), "runs", machine(report("preparing")), ["starting"]),
        (part(state=MISSING), "runs", machine(), ["missing"]),
        (part(state=MISSING), "runs", machine(report("lost")), ["missing"]),
        (part(claimed=True), "runs", machine(), ["unconfirmed"]),
        (part(state=PREPARED), "runs", machine(report("prepared")), ["unreleased"]),
        (part(), "runs", machine(report(changes=0)), ["outdated"]),
        (part(), "runs", machine(report(changes=0, attempt=1)), []),
        (part(), "runs", machine(report(), nodes=FAILED_NODE), ["node"]),
        (
            part(state=ENDED, failed=(("camera", "exited with code 1"),)),
            "runs",
            machine(),
            ["node"],
        ),
        (part(state=ENDED), "runs", machine(report()), ["unstopped"]),
        (part(), "stops", machine(report()), ["unstopped"]),
        (part(), "stops", machine(report(stopped=True)), []),
        (part(), "stops", machine(), ["unreported"]),
        (part(state=ENDED), "ended", machine(report("lost")), ["unstopped"]),
        (part(state=ENDED), "ended", machine(), []),
    ],
)
def test_one_part(
    recorded: RecordedPart, wanted: Wanted, robot: ReportedMachine, kinds: list[str]
) -> None:
    keys = found(recorded, wanted=wanted, reported={"robot": robot})
    assert [kind for kind, _, _ in keys] == kinds


def test_a_machine_that_never_registered_is_away() -> None:
    assert found(part(), reported={}) == [("away", "robot", "")]


def test_parts_without_a_record() -> None:
    reported = {"robot": machine(report()), "station": machine(report())}
    assert found(part(), reported=reported) == [("unknown", "station", "")]
    assert differences([], {"robot": OFF}, NOW) == []


@pytest.mark.parametrize(
    ("robot", "station", "keys"),
    [
        (link("r1", station="s1"), link("s1", robot="r1"), []),
        (link("r1"), link("s1", robot="r1"), [("unconnected", "robot", "station")]),
        (link("r2", station="s1"), link("s1", robot="r1"), [("unconnected", "station", "robot")]),
        (None, link("s1"), []),
        (LinkReport(run_id="r1"), link("s1"), [("unconnected", "robot", "station")]),
    ],
)
def test_links_that_do_not_know_each_other(
    robot: LinkReport | None, station: LinkReport, keys: list[tuple[str, str, str]]
) -> None:
    parts = (
        part(peers=("station",)),
        part(machine="station", nodes=("detector",), peers=("robot",)),
    )
    reported = {"robot": machine(report(link=robot)), "station": machine(report(link=station))}
    assert found(*parts, reported=reported) == keys


def test_links_that_do_not_reach_each_other_are_named() -> None:
    unlinked = (("robot", "station", "no answer"),)
    reported = {"robot": machine(report())}
    assert found(part(), reported=reported, unlinked=unlinked) == [("unlinked", "robot", "station")]
    assert found(part(), wanted="stops", reported={}, unlinked=unlinked) == []


def test_a_start_whose_nodes_all_wait_is_released() -> None:
    robot = part(state=PREPARED)
    station = part(machine="station", nodes=("detector",), state=PREPARED)
    waits = report("prepared")
    reported = {"robot": machine(waits), "station": machine(waits)}
    for parts, linked, expected in (
        ((robot, station), True, [("unreleased", "robot", "")]),
        ((robot, station), False, []),
        ((robot, replace(station, state=PREPARING)), True, [("unnoticed", "station", "")]),
    ):
        dataflow = RecordedDataflow(ID, "app", "starts", 1, parts, linked=linked)
        assert [one.key for one in differences([dataflow], reported, NOW)] == expected


def test_each_sentence_names_a_command() -> None:
    commands = {
        "away": "`dora stop app`",
        "unreported": "`dora restart app`",
        "missing": "`dora logs app`",
        "unconfirmed": "`dora restart app`",
        "node": "`dora node restart camera`",
        "unstopped": "`dora stop app --force`",
        "unprepared": "`dora restart app`",
        "starting": "`dora logs app`",
        "unnoticed": "`dora restart app`",
    }
    cases = {
        "away": (part(), OFF),
        "unreported": (part(), machine()),
        "missing": (part(state=MISSING), machine()),
        "unconfirmed": (part(claimed=True), machine()),
        "node": (part(), machine(report(), nodes=FAILED_NODE)),
        "unstopped": (part(state=ENDED), machine(report())),
        "unprepared": (part(state=PREPARING), machine()),
        "starting": (part(state=PREPARING), machine(report("preparing"))),
        "unnoticed": (part(state=PREPARING), machine(report("prepared"))),
    }
    for kind, (recorded, robot) in cases.items():
        wanted: Wanted = "starts" if recorded.state is PREPARING else "runs"
        dataflow = RecordedDataflow(ID, "app", wanted, 1, (recorded,))
        (one,) = differences([dataflow], {"robot": robot}, NOW)
        assert one.kind == kind
        assert commands[kind] in one.text
        assert "camera" in one.text
    (away,) = differences([RecordedDataflow(ID, "app", "runs", 1, (part(),))], {"robot": OFF}, NOW)
    assert 'machine "robot" has not been connected for 1 min (nodes camera)' in away.text
