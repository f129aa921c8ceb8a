"""Recovery after the loss of a connection, daemon, runner, machine or coordinator."""

from __future__ import annotations

from support.simulation.fleets import SimulatedFleet, dataflow, running_fleet
from support.simulation.machines import SimulatedDaemon

from dora_config.protocol.daemon import TO_COORDINATOR, DaemonMessage, PartChanged


def test_nodes_continue_while_a_connection_is_lost() -> None:
    fleet, robot, _ = running_fleet()
    (runner,) = robot.runners
    fleet.disconnect(robot)
    assert fleet.listed() == [("Degraded", 'no connection to daemon "robot"')]
    fleet.connect(robot)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    assert robot.runners == [runner]


def test_a_killed_daemon_adopts_its_runners() -> None:
    fleet, robot, _ = running_fleet()
    (runner,) = robot.runners
    fleet.kill_daemon(robot)
    assert fleet.listed()[0][0] == "Degraded"
    fleet.start_daemon(robot)
    fleet.settle()
    assert robot.runners == [runner]
    assert runner.phase == "running"
    assert fleet.listed() == [("Running", None)]


def test_nodes_of_a_rebooted_machine_are_spawned_at_once() -> None:
    fleet, robot, station = running_fleet()
    (untouched,) = station.runners
    fleet.reboot(robot)
    fleet.start_daemon(robot)
    fleet.settle()
    assert [runner.phase for runner in robot.runners] == ["running"]
    assert station.runners == [untouched]
    assert fleet.listed() == [("Running", None)]
    (line,) = [line for line in fleet.log if "auto-recovery: re-spawning camera" in line]
    assert line.endswith('machine "robot" was rebooted')


def test_a_runner_that_dies_repeatedly_is_spawned_less_often() -> None:
    fleet, robot, _ = running_fleet()
    for _ in range(2):
        fleet.kill_runner(robot.runners[0], robot)
        fleet.settle()
    assert fleet.listed()[0][0] == "Recovering"  # only the first recovery is immediate
    fleet.pass_time(1)
    assert robot.runners[0].phase == "running"
    fleet.kill_runner(robot.runners[0], robot)
    fleet.settle()
    fleet.pass_time(1)
    assert not robot.living(robot.runners[0].dataflow_id)
    fleet.pass_time(1)
    assert robot.runners[0].phase == "running"
    assert fleet.listed() == [("Running", None)]


def test_two_power_cuts_in_a_row_delay_nothing() -> None:
    fleet, robot, _ = running_fleet()
    fleet.reboot(robot)
    fleet.pass_time(10.0)
    robot.start(fleet.now)
    fleet.connect(robot)
    fleet.step_to_coordinator(robot)  # its nodes are being started again
    fleet.reboot(robot)
    fleet.pass_time(10.0)
    fleet.start_daemon(robot)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]


def test_a_reboot_soon_after_a_recovery_is_recovered_at_once() -> None:
    fleet, robot, _ = running_fleet()
    fleet.kill_runner(robot.runners[0], robot)
    fleet.settle()
    for _ in range(3):
        fleet.reboot(robot)
        fleet.start_daemon(robot)
        fleet.settle()
        assert fleet.listed() == [("Running", None)]


def test_a_node_that_fails_at_each_recovery_is_spawned_less_and_less_often() -> None:
    fleet, robot, _ = running_fleet()
    robot.broken_nodes.add("camera")
    fleet.reboot(robot)
    fleet.start_daemon(robot)
    fleet.settle()
    times, attempt = [], 0
    began = fleet.now
    for _ in range(1000):
        present = robot.disk[next(iter(fleet.store))].attempt
        if present > attempt:
            times.append(round(fleet.now - began))
        attempt = present
        fleet.pass_time(0.1, step=0.1)
    assert times == [0, 1, 3, 7, 15, 31, 61, 91]
    assert "exited with code 1" in str(fleet.listed())
    robot.broken_nodes.clear()
    fleet.pass_time(31)
    assert fleet.listed() == [("Running", None)]


def test_a_restarted_coordinator_recovers_running_dataflows() -> None:
    fleet, robot, station = running_fleet()
    before = (robot.runners[0], station.runners[0])
    fleet.kill_coordinator()
    fleet.start_coordinator()
    status, reason = fleet.listed()[0]
    assert status == "Recovering"
    assert reason == 'waiting for daemon "robot", daemon "station"'
    fleet.connect(robot)
    fleet.settle()
    assert fleet.listed() == [("Recovering", 'waiting for daemon "station"')]
    fleet.connect(station)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    assert (robot.runners[0], station.runners[0]) == before


def test_a_machine_that_does_not_report_degrades_the_dataflow() -> None:
    fleet, robot, station = running_fleet()
    fleet.kill_coordinator()
    fleet.kill_daemon(station)
    fleet.start_coordinator()
    fleet.connect(robot)
    fleet.settle()
    fleet.pass_time(60)
    ((status, reason),) = fleet.listed()
    assert status == "Degraded"
    assert reason is not None
    assert reason.startswith('no connection to daemon "station"; machine "station" has not been')
    assert "`dora doctor cluster.yml` checks machines and ports, `dora stop" in reason


def test_results_of_a_disconnected_machine_are_reported_later() -> None:
    fleet, robot, station = running_fleet()
    fleet.disconnect(robot)
    fleet.finish_runner(robot.runners[0], robot, failed={"camera"})
    fleet.finish_runner(station.runners[0], station)
    fleet.settle()
    assert fleet.listed()[0][0] == "Degraded"
    fleet.connect(robot)
    fleet.settle()
    assert fleet.listed() == [("Failed", "failed: camera")]
    assert robot.disk[robot.runners[0].dataflow_id].forgotten


class _ForgingFleet(SimulatedFleet):
    """Machines report changes of dataflows that they cannot describe with a signature."""

    def _receive(self, daemon: SimulatedDaemon, message: DaemonMessage | str) -> None:
        if isinstance(message, str):
            message = TO_COORDINATOR.decode(message)
        if isinstance(message, PartChanged):
            report = message.report.model_copy(update={"changes": 9})
            message = message.model_copy(update={"report": report})
        super()._receive(daemon, message)


def test_a_machine_is_asked_once_for_changes_that_it_cannot_prove() -> None:
    fleet = _ForgingFleet()
    fleet.add_daemon("robot", "robot")
    fleet.settle()
    fleet.start(dataflow(camera="robot"))
    fleet.settle()  # fails if messages never end
    assert fleet.listed() == [("Running", None)]
