"""Nodes that have ended while the rest of their dataflow runs: seen, repaired, rolled back."""

from __future__ import annotations

from coordinator.fleet.test_fleet import apply, report
from support.simulation.fleets import SimulatedFleet, fleet_of
from support.simulation.machines import SimulatedRunner

from dora_config.dataflow.resolved import (
    ResolvedDataflow,
    ResolvedDeploy,
    ResolvedInput,
    ResolvedNode,
)
from dora_config.dataflow.sources import OutputSource
from dora_config.protocol.control import CallRunner, ChangeGraph, StopDataflow
from dora_config.protocol.daemon import TO_DAEMON, DaemonAnswered, DaemonCall
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet import DesiredDataflow, Rollout
from dora_config.protocol.runner import Refusal, RemoveNode, RestartNode
from dora_coordinator.state.events import DaemonMessageReceived


def app(*, version: str = "1", **machines: str) -> DesiredDataflow:
    """A chain of nodes with a machine each; ``version`` is the program of the last one."""
    nodes: list[ResolvedNode] = []
    for node, machine in machines.items():
        inputs = {}
        if nodes:
            inputs["in"] = ResolvedInput(source=OutputSource(node=nodes[-1].id, output="out"))
        path = version if node == list(machines)[-1] else "1"
        deploy = ResolvedDeploy(machine=machine)
        nodes.append(
            ResolvedNode(id=node, path=path, deploy=deploy, inputs=inputs, outputs=("out",))
        )
    resolved = ResolvedDataflow(nodes=tuple(nodes))
    return DesiredDataflow(spec=DataflowSpec(resolved=resolved, name="app"))


def runner(fleet: SimulatedFleet, machine: str) -> SimulatedRunner:
    (found,) = [one for one in fleet.daemons[machine].runners if one.lives]
    return found


def applied() -> SimulatedFleet:
    """A fleet whose counter runs on "robot" and whose sink runs on "station"."""
    fleet = fleet_of("robot", "station")
    apply(fleet, app(counter="robot", sink="station"))
    fleet.pass_time(10.0)
    assert fleet.listed() == [("Running", None)]
    return fleet


def fail_sink(fleet: SimulatedFleet) -> None:
    station = fleet.daemons["station"]
    fleet.finish_runner(runner(fleet, "station"), station, failed={"sink"})
    fleet.pass_time(1.0)


FAILED = 'node "sink" has failed: exited with code 1; `dora node restart sink` starts it again'


def test_a_failed_node_is_seen_in_the_list() -> None:
    fleet = applied()
    fail_sink(fleet)
    assert fleet.listed() == [("Running", FAILED)]
    (copy,) = report(fleet).copies
    assert (copy.state, copy.detail) == ("failed", 'node "sink" has failed: exited with code 1')


def test_an_apply_repairs_a_part_that_has_ended() -> None:
    for version in ("1", "2"):
        fleet = applied()
        counter = runner(fleet, "robot")
        fail_sink(fleet)
        apply(fleet, app(counter="robot", sink="station", version=version))
        fleet.pass_time(60.0)
        assert report(fleet).outcome == "done"
        assert fleet.listed() == [("Running", None)]
        assert runner(fleet, "robot") is counter
        sink = runner(fleet, "station")
        assert (sink.phase, sink.definitions.nodes[0].node.path) == ("running", version)
        assert sink.link is not None
        assert [peer.state for peer in sink.link.peers.values()] == ["connected"]


def test_a_failed_node_is_restarted_by_hand_although_its_part_has_ended() -> None:
    fleet = applied()
    fail_sink(fleet)
    number = fleet.request(CallRunner(node="sink", request=RestartNode(node="sink")))
    fleet.pass_time(5.0)
    assert number in fleet.answers
    assert fleet.listed() == [("Running", None)]
    assert runner(fleet, "station").phase == "running"


def restart_while_the_runner_ends(fleet: SimulatedFleet) -> int:
    """Request a restart that the runner refuses because its last node has ended."""
    station = fleet.daemons["station"]
    number = fleet.request(CallRunner(node="sink", request=RestartNode(node="sink")))
    (text,) = station.from_coordinator
    station.from_coordinator.clear()
    message = TO_DAEMON.decode(text)
    assert isinstance(message, DaemonCall)
    reply = Refusal(message="the dataflow is stopping", ended=True)
    assert station.connection is not None
    answered = DaemonAnswered(call=message.call, reply=reply)
    fleet.handle(DaemonMessageReceived(station.connection, answered))
    return number


def test_a_restart_waits_for_the_end_of_a_runner_that_refuses_it() -> None:
    fleet = applied()
    number = restart_while_the_runner_ends(fleet)
    fleet.pass_time(2.0)
    assert number not in fleet.failures
    fail_sink(fleet)
    fleet.pass_time(5.0)
    assert number in fleet.answers
    assert fleet.listed() == [("Running", None)]
    assert runner(fleet, "station").phase == "running"


def test_a_restart_is_refused_if_the_runner_does_not_end() -> None:
    fleet = applied()
    number = restart_while_the_runner_ends(fleet)
    fleet.pass_time(60.0)
    assert fleet.failures[number].message == "the dataflow is stopping"


def test_a_restart_is_refused_if_the_dataflow_is_stopped() -> None:
    fleet = applied()
    number = restart_while_the_runner_ends(fleet)
    fleet.request(StopDataflow(dataflow="app"))
    fleet.pass_time(2.0)
    assert fleet.failures[number].message == "the dataflow is stopping"


def test_a_node_that_fails_again_is_refused_and_stays_failed() -> None:
    fleet = applied()
    fail_sink(fleet)
    fleet.daemons["station"].broken_nodes.add("sink")
    number = fleet.request(CallRunner(node="sink", request=RestartNode(node="sink")))
    fleet.pass_time(60.0)
    assert 'node "sink" exited with code 1' in fleet.failures[number].message
    assert fleet.listed() == [("Running", FAILED)]
    assert not any(one.lives for one in fleet.daemons["station"].runners)


def test_only_the_restarted_node_of_an_ended_part_is_started() -> None:
    fleet = fleet_of("robot", "station")
    apply(fleet, app(counter="robot", log="station", sink="station"))
    fleet.pass_time(10.0)
    fail_sink(fleet)
    fleet.request(CallRunner(node="sink", request=RestartNode(node="sink")))
    fleet.pass_time(5.0)
    again = runner(fleet, "station")
    assert (again.nodes, again.definitions.stopped) == (("log", "sink"), ("log",))


def test_an_ended_part_is_removed_with_its_node() -> None:
    fleet = applied()
    fail_sink(fleet)
    fleet.request(ChangeGraph(dataflow="app", change=RemoveNode(node="sink", grace=1.0)))
    fleet.pass_time(5.0)
    assert fleet.listed() == [("Running", None)]
    ((record, spec),) = fleet.store.values()
    assert [part.daemon for part in record.parts] == ["robot"]
    assert [node.id for node in spec.resolved.nodes] == ["counter"]


def test_a_rollback_touches_only_what_the_failed_change_had_touched() -> None:
    fleet = fleet_of("robot", "station", "arm")
    apply(fleet, app(counter="robot", sink="station"))
    fleet.pass_time(10.0)
    before = [runner(fleet, "robot"), runner(fleet, "station")]
    rollout = Rollout(healthy=5.0, on_failure="rollback")
    apply(fleet, app(counter="robot", sink="station", motor="arm"), rollout=rollout)
    fleet.pass_time(2.0)
    fleet.finish_runner(runner(fleet, "arm"), fleet.daemons["arm"], failed={"motor"})
    fleet.pass_time(60.0)
    assert [runner(fleet, "robot"), runner(fleet, "station")] == before
    assert fleet.listed() == [("Running", None)]
    (uuid,) = fleet.store
    assert [node.id for node in fleet.store[uuid][1].resolved.nodes] == ["counter", "sink"]
    assert fleet.coordinator is not None
    history = str(fleet.coordinator.registry.history.of(uuid))
    assert 'node "motor" failed: exited with code 1' in history
