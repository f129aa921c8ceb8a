"""What differs between records and reports: a table of all kinds, and of what is no difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import OutputSource
from dora_config.protocol.daemon import Metrics, PartReport, Register
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.links import LinkReport, PeerReport
from dora_config.protocol.runner import DataflowResult, NodeResult, NodeStatus
from dora_coordinator.dataflow.data import DataflowContext, DataflowData
from dora_coordinator.dataflow.differences import of_dataflow, of_parts, without_record
from dora_coordinator.settings import Settings
from dora_coordinator.state.events import DaemonRegistered
from dora_coordinator.state.identities import Proof
from dora_coordinator.state.membership import Membership
from dora_coordinator.state.records import DataflowRecord, PartState, Phase, StoredPart

ID = "996ad860-2a9a-504f-8861-aeafd0b2ae29"
RUNNING, MISSING, ENDED = PartState.RUNNING, PartState.MISSING, PartState.ENDED
PREPARING, PREPARED = PartState.PREPARING, PartState.PREPARED
NOW = 100.0
STARTS, RUNS, STOPS, HAS_ENDED = Phase.PREPARING, Phase.RUNNING, Phase.STOPPING, Phase.FINISHED


def part(**fields: Any) -> StoredPart:
    facts = {"daemon": "robot", "nodes": ("camera",), "state": RUNNING, "attempt": 2, **fields}
    return StoredPart.model_validate(facts)


def detector(**fields: Any) -> StoredPart:
    return part(daemon="station", nodes=("detector",), **fields)


def report(phase: str = "running", **fields: Any) -> PartReport:
    facts = {"dataflow_id": ID, "attempt": 2, "phase": phase, "changes": 1, **fields}
    return PartReport.model_validate(facts)


@dataclass(frozen=True)
class Machine:
    """What a machine reports; ``away_since``: it is not connected."""

    report: PartReport | None = None
    nodes: tuple[NodeStatus, ...] = ()
    away_since: float | None = None


def flow(phase: Phase, *parts: StoredPart, edge: bool = True) -> DataflowData:
    """Return a dataflow whose detector, if ``edge``, reads the camera."""
    image = {"image": ResolvedInput(source=OutputSource(node="camera", output="image"))}
    nodes = (
        ResolvedNode(id="camera", outputs=("image",)),
        ResolvedNode(id="detector", inputs=image if edge else {}),
    )
    record = DataflowRecord(
        dataflow_id=ID, name="app", phase=phase, parts=parts, number=1, changes=1
    )
    spec = DataflowSpec(resolved=ResolvedDataflow(nodes=nodes))
    return DataflowData(record, spec, DataflowContext(Membership(Settings()), Settings()))


def membership(machines: Mapping[str, Machine]) -> Membership:
    found = Membership(Settings())
    for number, (name, machine) in enumerate(machines.items(), start=1):
        register = Register(
            party=ProgramVersion(program="daemon", release="1"),
            instance=name,
            incarnation="1",
            machine_id=name,
            parts=() if machine.report is None else (machine.report,),
            public_key="",
        )
        at = NOW if machine.away_since is None else machine.away_since
        found.register(DaemonRegistered(number, register, "10.0.0.1:1", Proof("")), at)
        if machine.away_since is not None:
            found.disconnect(number)
        elif (member := found.get(name)) is not None:
            member.metrics = {ID: Metrics(dataflow_id=ID, nodes=machine.nodes)}
    return found


def found(data: DataflowData, machines: Mapping[str, Machine]) -> list[tuple[str, str, str]]:
    known = membership(machines)
    return [one.key for one in of_parts(data, data.parts.values(), known, NOW)]


def link(run_id: str, **peers: str) -> LinkReport:
    reports = tuple(PeerReport(machine=name, run_id=run) for name, run in peers.items())
    return LinkReport(run_id=run_id, endpoints=("10.0.0.1:7450",), peers=reports)


OFF = Machine(away_since=40.0)
NOTHING = Machine()
BROKEN = (NodeStatus(node="camera", status="Failed", error="exited with code 1"),)
FAILURE = NodeResult(node="camera", outcome="failed", message="exited with code 1")
FAILED = DataflowResult(dataflow_id=ID, nodes=(FAILURE,))


@pytest.mark.parametrize(
    ("recorded", "phase", "robot", "kinds"),
    [
        (part(), RUNS, Machine(report()), []),
        (part(state=PREPARING), STARTS, NOTHING, ["unprepared"]),
        (part(state=PREPARING), STARTS, Machine(report("lost")), ["unprepared"]),
        (part(state=PREPARING), STARTS, Machine(report(attempt=1)), ["unprepared"]),
        (part(state=PREPARING), STARTS, Machine(report("preparing")), ["starting"]),
        (part(state=PREPARED), STARTS, Machine(report("prepared")), []),
        (part(state=PREPARING), STARTS, Machine(report("prepared")), ["unnoticed"]),
        (part(state=PREPARED), STARTS, Machine(report("ended")), ["unnoticed"]),
        (part(state=PREPARED), STARTS, NOTHING, ["unreported"]),
        (part(state=PREPARED), STARTS, OFF, ["away"]),
        (part(), RUNS, OFF, ["away"]),
        (part(), STOPS, OFF, []),
        (part(state=ENDED), RUNS, OFF, []),
        (part(), RUNS, NOTHING, ["unreported"]),
        (part(), RUNS, Machine(report("ended")), ["unnoticed"]),
        (part(), RUNS, Machine(report("ended", attempt=1)), ["unreported"]),
        (part(state=PREPARING), RUNS, Machine(report()), ["unnoticed"]),
        (part(), RUNS, Machine(report("preparing")), ["unnoticed"]),
        (part(), RUNS, Machine(report("lost")), ["unreported"]),
        (part(), RUNS, Machine(report("lost", attempt=1)), []),
        (part(state=PREPARING), RUNS, Machine(report("lost", attempt=1)), ["unprepared"]),
        (part(state=PREPARING), RUNS, NOTHING, ["unprepared"]),
        (part(state=PREPARING), RUNS, Machine(report("preparing")), ["starting"]),
        (part(state=MISSING), RUNS, NOTHING, ["missing"]),
        (part(state=MISSING), RUNS, Machine(report("lost")), ["missing"]),
        (part(claimed=True), RUNS, NOTHING, ["unconfirmed"]),
        (part(state=PREPARED), RUNS, Machine(report("prepared")), ["unreleased"]),
        (part(), RUNS, Machine(report(changes=0)), ["outdated"]),
        (part(), RUNS, Machine(report(changes=0, attempt=1)), []),
        (part(), RUNS, Machine(report(), BROKEN), ["node"]),
        (part(state=ENDED, result=FAILED), RUNS, NOTHING, ["node"]),
        (part(state=ENDED), RUNS, Machine(report()), ["unstopped"]),
        (part(), STOPS, Machine(report()), ["unstopped"]),
        (part(), STOPS, Machine(report(stopped=True)), []),
        (part(), STOPS, NOTHING, ["unreported"]),
        (part(state=ENDED), HAS_ENDED, Machine(report("lost")), ["unstopped"]),
        (part(state=ENDED), HAS_ENDED, NOTHING, []),
    ],
)
def test_one_part(recorded: StoredPart, phase: Phase, robot: Machine, kinds: list[str]) -> None:
    keys = found(flow(phase, recorded), {"robot": robot})
    assert [kind for kind, _, _ in keys] == kinds


def test_a_machine_that_never_registered_is_away() -> None:
    assert found(flow(RUNS, part()), {}) == [("away", "robot", "")]


def test_parts_without_a_record() -> None:
    members = membership({"robot": Machine(report()), "station": Machine(report())}).all()
    keys = [one.key for one in without_record({ID: flow(RUNS, part())}, members)]
    assert keys == [("unknown", "station", "")]
    assert [one.machine for one in without_record({}, members)] == ["robot", "station"]
    assert list(without_record({}, membership({"robot": OFF}).all())) == []


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
    machines = {"robot": Machine(report(link=robot)), "station": Machine(report(link=station))}
    assert found(flow(RUNS, part(), detector()), machines) == keys


def test_a_link_to_an_ended_part_is_not_needed() -> None:
    ended = detector(state=ENDED)
    machines = {"robot": Machine(report(link=link("r1"))), "station": NOTHING}
    assert found(flow(RUNS, part(), ended), machines) == []


def test_links_that_do_not_reach_each_other_are_named() -> None:
    members = membership({"robot": Machine(report()), "station": Machine(report())})
    (one,) = of_dataflow(flow(RUNS, part(), detector()), members, NOW)
    assert one.key == ("unlinked", "robot", "station")
    assert '"robot" and "station" cannot reach each other; `dora doctor' in one.text
    stopping = of_dataflow(flow(STOPS, part(), detector()), members, NOW)
    assert "unlinked" not in [one.kind for one in stopping]


def test_a_start_whose_nodes_all_wait_is_released() -> None:
    waits = Machine(report("prepared"))
    members = membership({"robot": waits, "station": waits})
    robot, station = part(state=PREPARED), detector(state=PREPARED)
    for other, edge, expected in (
        (station, False, [("unreleased", "robot", "")]),
        (station, True, [("unlinked", "robot", "station")]),
        (detector(state=PREPARING), False, [("unnoticed", "station", "")]),
    ):
        data = flow(STARTS, robot, other, edge=edge)
        assert [one.key for one in of_dataflow(data, members, NOW)] == expected


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
        "unreported": (part(), NOTHING),
        "missing": (part(state=MISSING), NOTHING),
        "unconfirmed": (part(claimed=True), NOTHING),
        "node": (part(), Machine(report(), BROKEN)),
        "unstopped": (part(state=ENDED), Machine(report())),
        "unprepared": (part(state=PREPARING), NOTHING),
        "starting": (part(state=PREPARING), Machine(report("preparing"))),
        "unnoticed": (part(state=PREPARING), Machine(report("prepared"))),
    }
    for kind, (recorded, robot) in cases.items():
        data = flow(STARTS if recorded.state is PREPARING else RUNS, recorded)
        members = membership({"robot": robot})
        (one,) = of_dataflow(data, members, NOW)
        assert one.kind == kind
        assert commands[kind] in one.text
        assert "camera" in one.text
        if kind == "away":
            assert 'machine "robot" has not been connected for 1 min (nodes camera)' in one.text
