"""Desired state in a simulated fleet: apply, pause, rollback, faults."""

from __future__ import annotations

import re

from support.simulation.fleets import SimulatedFleet, fleet_of

from dora_config.dataflow.resolved import (
    ResolvedDataflow,
    ResolvedDeploy,
    ResolvedInput,
    ResolvedNode,
)
from dora_config.dataflow.sources import OutputSource, TimerSource
from dora_config.protocol.control import (
    ChangeGraph,
    ControlAnswer,
    ControlRequest,
    ForgetEnded,
    StopDataflow,
)
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet import (
    ApplyFleet,
    CheckMachine,
    CompareFleet,
    DesiredDataflow,
    Fleet,
    FleetComparison,
    FleetHistory,
    FleetReport,
    GetFleet,
    GetFleetHistory,
    PauseFleet,
    RollBackFleet,
    Rollout,
)
from dora_config.protocol.runner import RemoveNode

TICK = ResolvedInput(source=TimerSource(interval_ns=10**9))


def spec(name: str, *, version: str = "1", **paths: str) -> DataflowSpec:
    """A chain of nodes: ``spec("drive", camera="1", planner="2")`` gives each a program."""
    nodes: list[ResolvedNode] = []
    for node, path in (paths or {"camera": version, "planner": "1"}).items():
        inputs = {"tick": TICK}
        if nodes:
            inputs["in"] = ResolvedInput(source=OutputSource(node=nodes[-1].id, output="out"))
        nodes.append(ResolvedNode(id=node, path=path, inputs=inputs, outputs=("out",)))
    return DataflowSpec(resolved=ResolvedDataflow(nodes=tuple(nodes)), name=name)


def on(name: str, *machines: str, version: str = "1", **paths: str) -> DesiredDataflow:
    return DesiredDataflow(spec=spec(name, version=version, **paths), machines=machines)


def ask(simulated: SimulatedFleet, request: ControlRequest) -> ControlAnswer:
    number = simulated.request(request)
    assert number in simulated.answers, simulated.failures[number].message
    return simulated.answers[number]


def compare(simulated: SimulatedFleet, *dataflows: DesiredDataflow) -> FleetComparison:
    found = ask(simulated, CompareFleet(fleet=Fleet(dataflows=dataflows)))
    assert isinstance(found, FleetComparison)
    return found


def apply(
    simulated: SimulatedFleet, *dataflows: DesiredDataflow, rollout: Rollout | None = None
) -> FleetReport:
    fleet = Fleet(dataflows=dataflows, rollout=rollout or Rollout())
    generation = compare(simulated).generation
    found = ask(simulated, ApplyFleet(fleet=fleet, generation=generation, by="ann@desk"))
    assert isinstance(found, FleetReport)
    return found


def report(simulated: SimulatedFleet) -> FleetReport:
    found = ask(simulated, GetFleet())
    assert isinstance(found, FleetReport)
    return found


def entries(simulated: SimulatedFleet) -> list[tuple[int, str, str]]:
    found = ask(simulated, GetFleetHistory())
    assert isinstance(found, FleetHistory)
    return [(one.generation, one.action, one.outcome) for one in found.generations]


def programs(simulated: SimulatedFleet) -> dict[str, dict[str, str | None]]:
    """Return the program of each node that lives, by dataflow."""
    assert simulated.coordinator is not None
    return {
        one.name or "": {node.id: node.path for node in one.spec.resolved.nodes}
        for one in simulated.coordinator.registry.live()
    }


def states(simulated: SimulatedFleet) -> dict[str, str]:
    return {one.name: one.state for one in report(simulated).copies}


def test_apply_starts_a_copy_on_each_machine_and_a_second_apply_changes_one_node() -> None:
    fleet = fleet_of("r1", "r2")
    assert [one.action for one in compare(fleet, on("drive", "r1", "r2")).copies] == ["start"] * 2
    apply(fleet, on("drive", "r1", "r2"))
    fleet.pass_time(10)
    assert entries(fleet) == [(1, "apply", "done")]
    assert states(fleet) == {"drive@r1": "current", "drive@r2": "current"}
    runners = [runner for daemon in fleet.daemons.values() for runner in daemon.runners]
    apply(fleet, on("drive", "r1", "r2", version="2"))
    fleet.pass_time(10)
    assert programs(fleet)["drive@r2"] == {"camera": "2", "planner": "1"}
    assert all(runner.lives for runner in runners)
    assert compare(fleet, on("drive", "r1", "r2", version="2")).copies[0].action == "equal"


def test_labels_choose_machines_also_those_that_come_later() -> None:
    fleet = fleet_of()
    fleet.add_daemon("r1", "r1", kind="rover")
    fleet.add_daemon("arm", "arm", kind="arm")
    fleet.settle()
    apply(fleet, DesiredDataflow(spec=spec("drive"), labels={"kind": "rover"}))
    fleet.pass_time(10)
    assert set(programs(fleet)) == {"drive@r1"}
    fleet.add_daemon("r2", "r2", kind="rover")
    fleet.pass_time(10)
    assert set(programs(fleet)) == {"drive@r1", "drive@r2"}


def test_a_second_operator_is_refused_with_both_named() -> None:
    fleet = fleet_of("r1")
    seen = compare(fleet).generation
    apply(fleet, on("drive", "r1"))
    late = ApplyFleet(fleet=Fleet(), generation=seen, by="bob@lab")
    refused = fleet.failures[fleet.request(late)]
    assert refused.code == "conflict"
    assert "ann@desk applied generation 1" in refused.message
    assert "bob@lab compared with generation 0" in refused.message


def test_removed_dataflows_are_stopped_and_foreign_ones_are_left_alone() -> None:
    fleet = fleet_of("r1")
    fleet.start(on("mine", "r1").copy_for("r1").model_copy(update={"name": "by hand"}))
    apply(fleet, on("drive", "r1"), on("map", "r1"))
    fleet.pass_time(10)
    stopped = next(one for one in compare(fleet, on("map", "r1")).copies if one.action == "stop")
    assert stopped.lines() == ['stop drive@r1: it is not in the file for machine "r1"']
    apply(fleet, on("map", "r1"))
    fleet.pass_time(10)
    assert set(programs(fleet)) == {"by hand", "map@r1"}
    (difference,) = compare(fleet, on("drive", "r1")).copies[:1]
    assert difference.lines() == ["start drive@r1: it has ended: it was stopped"]


def test_only_leaves_other_dataflows_as_they_are() -> None:
    fleet = fleet_of("r1")
    apply(fleet, on("drive", "r1"), on("map", "r1"))
    fleet.pass_time(10)
    request = ApplyFleet(
        fleet=Fleet(dataflows=(on("map", "r1", version="2"),)), only=("map",), generation=1
    )
    ask(fleet, request)
    fleet.pass_time(10)
    assert programs(fleet)["drive@r1"]["camera"] == "1"
    assert programs(fleet)["map@r1"]["camera"] == "2"
    wrong = fleet.request(CompareFleet(fleet=Fleet(), only=("no",)))
    assert "applied: drive, map" in fleet.failures[wrong].message


def test_what_was_stopped_by_hand_is_started_by_the_next_apply() -> None:
    fleet = fleet_of("r1")
    apply(fleet, on("drive", "r1"))
    fleet.pass_time(10)
    fleet.request(StopDataflow(dataflow="drive@r1"))
    fleet.pass_time(60)
    assert programs(fleet) == {}
    assert states(fleet) == {"drive@r1": "ended"}
    (difference,) = compare(fleet, on("drive", "r1")).copies
    assert difference.action == "start"
    assert difference.why.startswith("it has ended: it was stopped by hand at ")
    ask(fleet, ForgetEnded())
    fleet.pass_time(10)
    assert programs(fleet) == {}
    assert compare(fleet, on("drive", "r1")).copies[0].action == "start"
    apply(fleet, on("drive", "r1"))
    fleet.pass_time(10)
    assert set(programs(fleet)) == {"drive@r1"}


def test_changes_by_hand_stay_and_are_listed_until_the_next_apply() -> None:
    fleet = fleet_of("r1")
    apply(fleet, on("drive", "r1"))
    fleet.pass_time(10)
    removed = ChangeGraph(dataflow="drive@r1", change=RemoveNode(node="planner", grace=1.0))
    fleet.request(removed)
    fleet.pass_time(30)
    assert programs(fleet)["drive@r1"] == {"camera": "1"}
    (seen,) = report(fleet).copies
    assert (seen.state, seen.observed) == ("by hand", 1)
    assert re.fullmatch(r"changed by hand at ..:..:.. UTC: planner: removed", seen.detail)
    lines = compare(fleet, on("drive", "r1")).copies[0].lines()
    assert [line.partition(" at ")[0] for line in lines] == [
        "change drive@r1",
        "  changed by hand",
        "  planner: added",
    ]
    apply(fleet, on("drive", "r1"))
    fleet.pass_time(10)
    assert programs(fleet)["drive@r1"] == {"camera": "1", "planner": "1"}
    assert states(fleet) == {"drive@r1": "current"}


def test_the_outcome_no_longer_names_machines_that_have_returned() -> None:
    fleet = fleet_of("r1", "r2")
    fleet.end_daemon(fleet.daemons["r2"])
    fleet.pass_time(30)
    apply(fleet, on("drive", "r1", "r2"))
    fleet.pass_time(10)
    assert report(fleet).outcome == "done; off, follow when they return: r2"
    assert states(fleet)["drive@r2"] == "off"
    fleet.start_daemon(fleet.daemons["r2"])
    fleet.pass_time(30)
    assert report(fleet).outcome == "done"
    assert states(fleet)["drive@r2"] == "current"


def test_pause_and_rollback() -> None:
    fleet = fleet_of("r1")
    apply(fleet, on("drive", "r1"))
    fleet.pass_time(10)
    apply(fleet, on("drive", "r1", version="2"))
    fleet.pass_time(10)
    ask(fleet, PauseFleet(by="bob@lab"))
    assert report(fleet).paused == "by bob@lab"
    for request in (ApplyFleet(fleet=Fleet(), generation=2), RollBackFleet()):
        refused = fleet.failures[fleet.request(request)]
        assert refused.message.startswith("the fleet was paused by bob@lab; run `dora cluster res")
    ask(fleet, PauseFleet(paused=False, by="bob@lab"))
    apply(fleet, on("drive", "r1", version="3"))
    fleet.pass_time(10)
    assert programs(fleet)["drive@r1"]["camera"] == "3"
    ask(fleet, RollBackFleet(to=1))
    fleet.pass_time(10)
    assert programs(fleet)["drive@r1"]["camera"] == "1"
    refused = fleet.failures[fleet.request(RollBackFleet(to=9))]
    assert "generations: 1, 2, 3" in refused.message


def test_a_restart_that_fails_starts_what_ran_and_pauses() -> None:
    fleet = fleet_of("r1", "r2")
    apply(fleet, on("drive", "r1", "r2"))
    fleet.pass_time(10)
    fleet.daemons["r1"].broken_nodes.add("broken")
    apply(fleet, on("drive", "r1", "r2", broken="2"))  # it keeps no node: it is restarted
    fleet.pass_time(10)
    found = report(fleet)
    assert found.paused is not None
    assert "drive@r1" in found.paused
    assert "what ran before is started again" in found.paused
    former, later = {"camera": "1", "planner": "1"}, {"broken": "2"}
    assert programs(fleet) == {"drive@r1": former, "drive@r2": later}
    living = [r for daemon in fleet.daemons.values() for r in daemon.runners if r.lives]
    assert [runner.phase for runner in living] == ["running"] * 2
    fleet.daemons["r1"].broken_nodes.clear()
    ask(fleet, PauseFleet(paused=False))
    fleet.pass_time(20)
    assert programs(fleet) == {"drive@r1": later, "drive@r2": later}


def test_only_a_paused_or_failed_fleet_is_resumed() -> None:
    fleet = fleet_of("r1")
    resume = PauseFleet(paused=False)
    refused = fleet.failures[fleet.request(resume)]
    assert refused.message == "the fleet is not paused"
    apply(fleet, on("drive", "r1"))
    fleet.pass_time(10)
    assert fleet.failures[fleet.request(resume)].message == "the fleet is not paused"
    assert compare(fleet).machines == ("r1",)


def test_a_check_needs_permission() -> None:
    fleet = fleet_of("r1")
    request = ApplyFleet(fleet=Fleet(rollout=Rollout(check="true")), generation=0)
    assert "--set fleet_checks=1" in fleet.failures[fleet.request(request)].message
    of_an_upgrade = CheckMachine(command="true", version="0.2.0", dry_run=True)
    assert "--set fleet_checks=1" in fleet.failures[fleet.request(of_an_upgrade)].message


def test_a_pause_is_possible_before_the_first_apply() -> None:
    """It stops an upgrade."""
    fleet = fleet_of("r1")
    ask(fleet, PauseFleet(by="bob@lab"))
    assert report(fleet).paused == "by bob@lab"
    fleet.kill_coordinator()
    fleet.start_coordinator()
    assert report(fleet).paused == "by bob@lab"
    refused = fleet.failures[fleet.request(ApplyFleet(fleet=Fleet(), generation=0))]
    assert "paused by bob@lab" in refused.message
    ask(fleet, PauseFleet(paused=False))
    assert report(fleet).paused is None


def test_a_dataflow_over_machines_that_are_off_is_started_when_they_are_there() -> None:
    fleet = fleet_of("r1")
    nodes = tuple(
        node.model_copy(update={"deploy": ResolvedDeploy(machine=machine)})
        for node, machine in zip(spec("both").resolved.nodes, ("r1", "r2"), strict=True)
    )
    apply(fleet, DesiredDataflow(spec=spec("both").with_nodes(nodes)))
    fleet.pass_time(10)
    assert programs(fleet) == {}
    (seen,) = report(fleet).copies
    assert (seen.state, report(fleet).outcome) == ("waiting", "done; cannot be placed yet: both")
    assert "no matching daemon" in seen.detail
    fleet.add_daemon("r2", "r2")
    fleet.pass_time(30)
    assert set(programs(fleet)) == {"both"}
