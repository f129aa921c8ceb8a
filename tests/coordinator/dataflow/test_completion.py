"""End of dataflows whose nodes have finished."""

from __future__ import annotations

from support.simulation.fleets import running_fleet

from dora_config.dataflow.resolved import (
    ResolvedDataflow,
    ResolvedDeploy,
    ResolvedInput,
    ResolvedNode,
)
from dora_config.dataflow.sources import LogSource, OutputSource, TimerSource
from dora_config.protocol.dataflow import DataflowSpec
from dora_coordinator.dataflow.completion import CompletionRule
from dora_coordinator.dataflow.part import Part
from dora_coordinator.state.records import PartState

WHY = "all nodes but those with timers finished"


def camera_and_plot(*, exit_when_nodes_finish: bool = True) -> DataflowSpec:
    """Return a source with a timer on "robot" and its reader on "station"."""
    tick = ResolvedInput(source=TimerSource(interval_ns=1_000_000))
    image = ResolvedInput(source=OutputSource(node="camera", output="image"))
    nodes = (
        ResolvedNode(
            id="camera",
            path="camera.py",
            deploy=ResolvedDeploy(machine="robot"),
            inputs={"tick": tick},
            outputs=("image",),
        ),
        ResolvedNode(
            id="plot",
            path="plot.py",
            deploy=ResolvedDeploy(machine="station"),
            inputs={"image": image},
        ),
    )
    return DataflowSpec(
        resolved=ResolvedDataflow(nodes=nodes), exit_when_nodes_finish=exit_when_nodes_finish
    )


def test_a_part_with_timers_only_runs_until_its_readers_elsewhere_end() -> None:
    fleet, robot, station = running_fleet(camera_and_plot())
    fleet.wait_for_timers(robot.runners[0], robot)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    fleet.finish_runner(station.runners[0], station)
    fleet.settle()
    assert robot.runners[0].stop_reason == WHY
    assert fleet.listed() == [("Finished", WHY)]
    assert any(WHY in line for line in fleet.log)


def test_without_the_option_the_dataflow_runs_until_it_is_stopped() -> None:
    fleet, robot, station = running_fleet(camera_and_plot(exit_when_nodes_finish=False))
    fleet.finish_runner(station.runners[0], station)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    assert robot.runners[0].phase == "running"


def test_a_part_with_readers_of_logs_only_ends_with_the_others() -> None:
    spec = camera_and_plot(exit_when_nodes_finish=False)
    camera, plot = spec.resolved.nodes
    log = camera.model_copy(update={"inputs": {"lines": ResolvedInput(source=LogSource())}})
    nodes = ResolvedDataflow(nodes=(log, plot))
    fleet, robot, station = running_fleet(spec.model_copy(update={"resolved": nodes}))
    fleet.wait_for_timers(robot.runners[0], robot)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    fleet.finish_runner(station.runners[0], station)
    fleet.settle()
    assert fleet.listed() == [("Finished", "all nodes but those with logs finished")]


def test_a_node_that_runs_again_keeps_the_dataflow_running() -> None:
    fleet, robot, station = running_fleet(camera_and_plot())
    fleet.wait_for_timers(robot.runners[0], robot)
    fleet.wait_for_timers(robot.runners[0], robot, False)
    fleet.settle()
    fleet.finish_runner(station.runners[0], station)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]


def test_a_restarted_coordinator_receives_the_report_again() -> None:
    fleet, robot, station = running_fleet(camera_and_plot())
    fleet.kill_coordinator()
    fleet.wait_for_timers(robot.runners[0], robot)
    fleet.settle()
    fleet.start_coordinator()
    fleet.connect(robot)
    fleet.settle()
    assert fleet.listed()[0][0] == "Recovering"
    fleet.finish_runner(station.runners[0], station)
    fleet.settle()
    fleet.connect(station)
    fleet.settle()
    assert fleet.listed() == [("Finished", WHY)]


def test_a_restarted_daemon_receives_the_report_from_the_runner() -> None:
    fleet, robot, station = running_fleet(camera_and_plot())
    fleet.kill_daemon(robot)
    robot.runners[0].only_virtual_left = True
    fleet.start_daemon(robot)
    fleet.settle()
    fleet.finish_runner(station.runners[0], station)
    fleet.settle()
    assert fleet.listed() == [("Finished", WHY)]


def test_a_part_that_is_spawned_again_keeps_the_dataflow_running() -> None:
    fleet, robot, station = running_fleet(camera_and_plot())
    fleet.wait_for_timers(robot.runners[0], robot)
    fleet.settle()
    fleet.reboot(robot)
    fleet.settle()
    fleet.start_daemon(robot)
    fleet.settle()
    fleet.finish_runner(station.runners[0], station)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    fleet.wait_for_timers(robot.runners[0], robot)
    fleet.settle()
    assert fleet.listed() == [("Finished", WHY)]


def test_dynamic_nodes_do_not_keep_a_dataflow_running() -> None:
    nodes = (
        ResolvedNode(id="camera", path="camera.py", deploy=ResolvedDeploy(machine="robot")),
        ResolvedNode(
            id="viewer", path="dynamic", kind="dynamic", deploy=ResolvedDeploy(machine="station")
        ),
    )
    spec = DataflowSpec(resolved=ResolvedDataflow(nodes=nodes))
    fleet, robot, station = running_fleet(spec)
    fleet.finish_runner(robot.runners[0], robot)
    fleet.settle()
    why = "all nodes but dynamic ones have ended"
    assert station.runners[0].stop_reason == why
    assert fleet.listed() == [("Finished", why)]


def test_a_dataflow_of_only_timers_or_dynamic_nodes_runs_until_it_is_stopped() -> None:
    def part(*nodes: str) -> Part:
        made = Part("id", "robot", nodes, PartState.RUNNING, 1, None)
        made.only_virtual_left = True
        return made

    camera, _ = camera_and_plot().resolved.nodes
    assert CompletionRule([camera], when_nodes_finish=True).stop_reason([part("camera")]) is None
    dynamic = ResolvedNode(id="viewer", path="dynamic", kind="dynamic")
    assert CompletionRule([dynamic], when_nodes_finish=True).stop_reason([part("viewer")]) is None
    both = CompletionRule([camera, dynamic], when_nodes_finish=True)
    assert both.stop_reason([part("camera"), part("viewer")]) is None
