"""Each message of a start, a recovery, a restart or a stop is lost once; the fleet converges."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.simulation.fleets import SimulatedFleet, fleet_of, pipeline

from dora_config.protocol.control import RestartDataflow, StopDataflow
from dora_coordinator.settings import Settings

MACHINES = ("robot", "base", "arm")
MESSAGES = 60
"""More than any of these actions has before the first heartbeats."""


def begin(fleet: SimulatedFleet) -> None:
    fleet.start(pipeline(camera="robot", inference="base", actuator="arm"))


def lose_runner(fleet: SimulatedFleet) -> None:
    daemon = fleet.daemons["base"]
    fleet.kill_runner(daemon.runners[0], daemon)


def restart(fleet: SimulatedFleet) -> None:
    fleet.request(RestartDataflow(dataflow=None))


def stop(fleet: SimulatedFleet) -> None:
    fleet.request(StopDataflow(dataflow=None))


@pytest.mark.parametrize("action", [begin, lose_runner, restart, stop])
def test_each_lost_message_is_made_up_for(action: Callable[[SimulatedFleet], None]) -> None:
    for number in range(1, MESSAGES):
        fleet = fleet_of(*MACHINES)
        if action is not begin:
            begin(fleet)
            fleet.settle()
        fleet.lose_in = number
        action(fleet)
        fleet.settle()
        fleet.pass_time(60)
        assert fleet.lose_in < 0
        last = fleet.listed()[-1]
        living = [r for one in fleet.daemons.values() for r in one.runners if r.lives]
        if action is stop:
            assert (last[0], living) == ("Finished", []), number
        else:
            assert last == ("Running", None), number
            assert sorted(r.phase for r in living) == ["running"] * 3, number


def test_the_report_of_an_adopted_part_is_lost_until_the_dataflow_is_given_up() -> None:
    """It resumes by what the machine has reported, and is not stopped (seed 5256)."""
    fleet = SimulatedFleet(Settings(daemon_silence_limit=1e9))
    fleet.add_daemon("robot", "robot")
    fleet.settle()
    fleet.start(pipeline(camera="robot"))
    fleet.settle()
    (runner,) = fleet.daemons["robot"].runners
    fleet.lose_store()
    fleet.connect(fleet.daemons["robot"])
    fleet.lose_in = 3  # after the request for the description and the description
    fleet.settle()
    fleet.pass_time(65.0, heartbeats=False)
    fleet.pass_time(30.0)
    assert runner.phase == "running"
    assert fleet.listed() == [("Running", None)]


def test_the_request_to_describe_a_part_is_lost_while_nothing_is_recorded() -> None:
    """Machines are compared with an empty record, too: the request is repeated (seed 5850)."""
    fleet = SimulatedFleet(Settings(daemon_silence_limit=1e9))
    fleet.add_daemon("robot", "robot")
    fleet.settle()
    fleet.start(pipeline(camera="robot"))
    fleet.settle()
    (runner,) = fleet.daemons["robot"].runners
    fleet.lose_store()
    fleet.connect(fleet.daemons["robot"])
    fleet.lose_in = 1
    fleet.settle()
    assert fleet.listed() == []
    fleet.pass_time(30.0)
    assert runner.phase == "running"
    assert fleet.listed() == [("Running", None)]
