"""Links between machines: before the release of a start, and after faults."""

from __future__ import annotations

import pytest
from support.simulation.fleets import SimulatedFleet, fleet_of, pipeline
from support.simulation.machines import SimulatedRunner

from dora_config.protocol.control import (
    ClusterReport,
    ClusterStatus,
    DataflowList,
    Ended,
    ListDataflows,
    RestartDataflow,
    Restarted,
    Started,
    StartTriggered,
    StopDataflow,
)
from dora_config.protocol.links import PeerEndpoint, PeerReport
from dora_coordinator.settings import Settings
from dora_coordinator.state.records import Phase
from dora_daemon.link.protocol.status import other_security
from dora_testing.cluster.link import SimulatedLink, Wall


def chain(fleet: SimulatedFleet, *, allow_unlinked: bool = False) -> int:
    spec = pipeline(camera="robot", inference="base", actuator="arm", allow_unlinked=allow_unlinked)
    return fleet.start(spec)


def linked_fleet() -> SimulatedFleet:
    """Three machines with a running chain, the dataflow "app"."""
    fleet = fleet_of("robot", "base", "arm")
    spec = pipeline(camera="robot", inference="base", actuator="arm")
    fleet.start(spec.model_copy(update={"name": "app"}))
    fleet.settle()
    return fleet


def runner(fleet: SimulatedFleet, machine: str) -> SimulatedRunner:
    (found,) = [one for one in fleet.daemons[machine].runners if one.lives]
    return found


def peers(fleet: SimulatedFleet, machine: str) -> dict[str, str]:
    """Return the state of each peer in the report of a machine's link."""
    link = runner(fleet, machine).link
    assert link is not None
    return {name: peer.state for name, peer in link.peers.items()}


def living(fleet: SimulatedFleet) -> int:
    return sum(one.lives for daemon in fleet.daemons.values() for one in daemon.runners)


def test_parts_are_linked_before_they_are_released() -> None:
    fleet = fleet_of("robot", "base", "arm")
    fleet.walls.add(Wall(("robot", "base")))
    number = chain(fleet)
    fleet.settle()
    assert fleet.listed() == [("Starting", None)]
    assert [runner(fleet, name).phase for name in fleet.daemons] == ["ready"] * 3
    assert peers(fleet, "arm") == {"base": "connected"}
    fleet.walls.clear()
    fleet.settle()
    assert isinstance(fleet.answers[number], Started)
    assert fleet.listed() == [("Running", None)]
    assert peers(fleet, "base") == {"robot": "connected", "arm": "connected"}
    assert peers(fleet, "robot") == {"base": "connected"}, (
        "received addresses of machines without a shared edge"
    )


def test_links_connect_while_nodes_are_still_being_prepared() -> None:
    fleet = fleet_of("robot", "base", "arm")
    chain(fleet)
    moved = True
    while moved:
        moved = False
        for daemon in fleet.daemons.values():
            moved |= fleet.step_to_coordinator(daemon) or fleet.step_to_daemon(daemon)
            moved |= fleet.step_runner_event(daemon)
            for one in daemon.runners:
                moved |= fleet.step_link(one, daemon)
    assert "ready" not in [runner(fleet, name).phase for name in fleet.daemons]
    assert peers(fleet, "base") == {"robot": "connected", "arm": "connected"}
    fleet.settle()
    assert fleet.listed() == [("Running", None)]


def test_a_known_reason_is_reported_without_advice_about_firewalls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reason = other_security("base", plain=True)

    def refused(link: SimulatedLink, peer: PeerEndpoint, *_: object) -> PeerReport:
        return PeerReport(
            machine=peer.machine, run_id=peer.run_id, state="connecting", reason=reason
        )

    fleet = fleet_of("robot", "base", "arm")
    monkeypatch.setattr(SimulatedLink, "_try_peer", refused)
    number = chain(fleet)
    fleet.settle()
    fleet.pass_time(Settings().link_timeout + 1)
    fleet.settle()
    message = fleet.failures[number].message
    assert "set the same on all machines" in message
    assert "firewall" not in message


def test_each_part_gets_its_own_edges_only() -> None:
    fleet = linked_fleet()
    edges = {
        name: [
            (edge.source, edge.target)
            for record in daemon.disk.values()
            for edge in record.links.edges
        ]
        for name, daemon in fleet.daemons.items()
    }
    assert edges == {
        "robot": [("camera", "inference")],
        "base": [("camera", "inference"), ("inference", "actuator")],
        "arm": [("inference", "actuator")],
    }


def test_a_start_with_an_unlinked_pair_names_it_and_rolls_back() -> None:
    fleet = fleet_of("robot", "base", "arm")
    fleet.walls.add(Wall(("robot", "base")))
    number = chain(fleet)
    fleet.settle()
    links = [runner(fleet, name).link for name in ("robot", "base")]
    fleet.pass_time(11)
    message = fleet.failures[number].message
    assert '"base" and "robot" cannot reach each other' in message
    for link in links:
        assert link is not None
        assert f"tried {link.endpoint} (no answer)" in message
    assert '"arm"' not in message
    assert "open one of these TCP ports" in message
    assert "--zenoh-listen" in message
    assert "--allow-unlinked" in message
    assert living(fleet) == 0
    assert fleet.listed()[0][0] == "Failed"


def waiting_lines(fleet: SimulatedFleet) -> list[str]:
    """Return the progress of a start that waits."""
    waits = [one.waits_for for one in fleet.progress if isinstance(one, StartTriggered)]
    return [line for line in waits if line is not None]


def test_a_start_over_a_slow_network_waits_longer_and_shows_it() -> None:
    fleet = fleet_of("robot", "base", "arm")
    fleet.slow = True
    fleet.walls.add(Wall(("robot", "base")))
    number = chain(fleet)
    fleet.pass_time(29)
    assert fleet.listed() == [("Starting", None)]
    fleet.pass_time(16)
    ((status, reason),) = fleet.listed()
    assert (status, (reason or "").count("`dora ")) == ("Starting", 1)
    assert '"base" and "robot" cannot reach each other' in (reason or "")
    (line,) = waiting_lines(fleet)
    assert '"base" and "robot" have not reached each other yet over a slow network' in line
    assert "(no answer)" in line
    fleet.walls.clear()
    fleet.settle()
    assert isinstance(fleet.answers[number], Started)
    fleet.pass_time(60)
    assert fleet.listed() == [("Running", None)]


def test_a_start_over_a_slow_network_is_refused_after_a_minute() -> None:
    fleet = fleet_of("robot", "base", "arm")
    fleet.slow = True
    fleet.walls.add(Wall(("robot", "base")))
    number = chain(fleet)
    fleet.pass_time(55)
    assert number not in fleet.failures
    fleet.pass_time(10)
    assert '"base" and "robot" cannot reach each other' in fleet.failures[number].message
    assert living(fleet) == 0


def test_a_slow_pair_does_not_prolong_the_wait_for_an_unreachable_one() -> None:
    fleet = fleet_of("robot", "base", "arm")
    fleet.walls |= {Wall(("robot", "base")), Wall(("base", "arm"))}
    number = chain(fleet)
    fleet.settle()
    runner(fleet, "arm").link.peers["base"] = (  # type: ignore[union-attr]
        runner(fleet, "arm").link.peers["base"].model_copy(update={"slow": True})  # type: ignore[union-attr]
    )
    fleet.pass_time(11)
    assert number in fleet.failures


def test_a_start_may_continue_unlinked() -> None:
    fleet = fleet_of("robot", "base", "arm")
    fleet.walls.add(Wall(("robot", "base")))
    number = chain(fleet, allow_unlinked=True)
    fleet.pass_time(11)
    started = fleet.answers[number]
    assert isinstance(started, Started)
    (warning,) = started.warnings
    assert '"base" and "robot" cannot reach each other' in warning
    ((status, reason),) = fleet.listed()
    assert status == "Degraded"
    assert '"base" and "robot" cannot reach each other' in (reason or "")
    fleet.walls.clear()
    fleet.settle()
    assert fleet.listed() == [("Running", None)]


def test_a_restart_keeps_allow_unlinked() -> None:
    fleet = fleet_of("robot", "base", "arm")
    fleet.walls.add(Wall(("robot", "base")))
    chain(fleet, allow_unlinked=True)
    fleet.pass_time(11)
    number = fleet.request(RestartDataflow())
    fleet.pass_time(11)
    answer = fleet.answers[number]
    assert isinstance(answer, Restarted)
    assert len(answer.warnings) == 1


def test_a_machine_that_cannot_listen_fails_the_start_at_once() -> None:
    fleet = fleet_of("robot", "base", "arm")
    fleet.daemons["base"].link_problem = "no port from 7450 to 7459 is free"
    number = chain(fleet)
    fleet.settle()
    message = fleet.failures[number].message
    assert 'daemon "base" cannot listen for links: no port from 7450 to 7459 is free' in message
    assert living(fleet) == 0


def test_a_link_that_never_listens_is_named_after_the_start_timeout() -> None:
    fleet = SimulatedFleet(Settings(start_timeout=5.0))
    robot, base = fleet.add_daemon("robot", "robot"), fleet.add_daemon("base", "base")
    fleet.settle()
    number = fleet.start(pipeline(camera="robot", inference="base"))
    for daemon in (robot, base):
        fleet.step_to_daemon(daemon)
        fleet.step_runner(daemon.runners[0], daemon)
        while fleet.step_runner_event(daemon) or fleet.step_to_coordinator(daemon):
            pass
    assert fleet.listed() == [("Starting", None)]
    fleet.now += 6
    fleet.fire_due()
    fleet.settle()
    assert 'no link within 5 s on daemon "robot", daemon "base"' in fleet.failures[number].message


def test_a_daemon_lost_while_linking_rolls_back() -> None:
    fleet = fleet_of("robot", "base", "arm")
    fleet.walls.add(Wall(("robot", "base")))
    number = chain(fleet)
    fleet.settle()
    fleet.disconnect(fleet.daemons["arm"])
    fleet.settle()
    assert 'connection to daemon "arm" was lost' in fleet.failures[number].message
    fleet.heal(seconds=5)
    assert living(fleet) == 0


def test_a_coordinator_that_ends_while_linking_rolls_back() -> None:
    fleet = fleet_of("robot", "base", "arm")
    fleet.walls.add(Wall(("robot", "base")))
    chain(fleet)
    fleet.settle()
    fleet.kill_coordinator()
    fleet.heal(seconds=5)
    ((status, reason),) = fleet.listed()
    assert status == "Failed"
    assert "the coordinator ended" in (reason or "")
    assert living(fleet) == 0


def test_a_part_that_is_spawned_again_is_linked_to_the_others_again() -> None:
    fleet = linked_fleet()
    old = runner(fleet, "base")
    fleet.kill_runner(old, fleet.daemons["base"])
    fleet.settle()
    new = runner(fleet, "base")
    assert new is not old
    assert old.link is not None
    assert new.link is not None
    assert new.link.endpoint != old.link.endpoint
    assert fleet.listed() == [("Running", None)]
    for name in ("robot", "arm"):
        assert peers(fleet, name) == {"base": "connected"}
    assert peers(fleet, "base") == {"robot": "connected", "arm": "connected"}


def test_a_link_with_a_new_address_is_linked_again() -> None:
    fleet = linked_fleet()
    for name in ("robot", "base"):  # so that neither has the address of the other
        fleet.kill_link(runner(fleet, name))
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    assert peers(fleet, "robot") == {"base": "connected"}


def test_a_broken_link_degrades_the_dataflow_until_it_is_linked_again() -> None:
    fleet = linked_fleet()
    fleet.walls.add(Wall(("base", "arm")))
    fleet.settle()
    ((status, reason),) = fleet.listed()
    assert status == "Degraded"
    assert '"arm" and "base" have lost each other' in (reason or "")
    assert [line for line in fleet.log if "have lost each other" in line]
    fleet.walls.clear()
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    assert [line for line in fleet.log if '"arm" and "base" are linked' in line]


def test_links_that_end_with_their_dataflow_are_not_logged() -> None:
    fleet = linked_fleet()
    fleet.request(StopDataflow())
    fleet.walls.add(Wall(("base", "arm")))  # one end has stopped before the other
    for _ in range(4):
        for daemon in fleet.daemons.values():
            fleet.step_link(daemon.runners[0], daemon)
            fleet.step_runner_event(daemon)
            fleet.step_to_coordinator(daemon)
        fleet.walls.clear()
    assert fleet.listed()[0][0] == "Stopping"
    assert not [line for line in fleet.log if '"arm" and "base"' in line]


def test_a_restarted_coordinator_receives_the_state_of_links_from_reports() -> None:
    fleet = linked_fleet()
    fleet.kill_coordinator()
    fleet.walls.add(Wall(("base", "arm")))
    fleet.settle()
    fleet.start_coordinator()
    for daemon in fleet.daemons.values():
        fleet.connect(daemon)
    fleet.settle()
    assert fleet.listed()[0][0] == "Degraded"
    fleet.walls.clear()
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    fleet.kill_runner(runner(fleet, "robot"), fleet.daemons["robot"])
    fleet.settle()
    assert peers(fleet, "robot") == {"base": "connected"}


def test_new_addresses_are_sent_when_the_coordinator_is_back() -> None:
    fleet = linked_fleet()
    fleet.kill_coordinator()
    for name in ("robot", "base"):
        fleet.kill_link(runner(fleet, name))
    fleet.settle()
    assert peers(fleet, "robot") == {"base": "lost"}
    fleet.heal(seconds=5)
    assert fleet.listed() == [("Running", None)]
    assert peers(fleet, "robot") == {"base": "connected"}


def test_a_coordinator_without_its_store_links_adopted_parts() -> None:
    fleet = linked_fleet()
    fleet.kill_coordinator()
    fleet.store.clear()
    fleet.heal(seconds=5)
    assert fleet.listed() == [("Running", None)]
    fleet.kill_runner(runner(fleet, "base"), fleet.daemons["base"])
    fleet.settle()
    assert peers(fleet, "base") == {"robot": "connected", "arm": "connected"}
    assert fleet.listed() == [("Running", None)]


def test_machines_that_are_adopted_one_by_one_are_linked() -> None:
    fleet = linked_fleet()
    fleet.lose_store()
    for daemon in fleet.daemons.values():
        fleet.connect(daemon)
        fleet.settle()
    assert fleet.listed() == [("Running", None)]


def test_a_dataflow_that_was_adopted_in_parts_is_stopped_as_a_whole() -> None:
    fleet = linked_fleet()
    fleet.lose_store()
    for daemon in fleet.daemons.values():
        fleet.connect(daemon)
        fleet.settle()
    number = fleet.request(StopDataflow(dataflow="app"))
    fleet.settle()
    assert isinstance(fleet.answers[number], Ended)
    assert living(fleet) == 0
    assert fleet.listed() == [("Finished", None)]


def test_a_part_that_is_adopted_during_a_stop_is_stopped() -> None:
    fleet = linked_fleet()
    fleet.lose_store()
    fleet.connect(fleet.daemons["robot"])
    fleet.settle()
    number = fleet.request(StopDataflow(dataflow="app"))
    for daemon in (fleet.daemons["base"], fleet.daemons["arm"]):
        fleet.connect(daemon)
        while fleet.step_to_coordinator(daemon) or fleet.step_to_daemon(daemon):
            pass
    assert number not in fleet.answers
    fleet.settle()
    assert isinstance(fleet.answers[number], Ended)
    assert living(fleet) == 0


def test_a_restarted_daemon_forwards_new_addresses_to_its_runner() -> None:
    fleet = linked_fleet()
    fleet.kill_daemon(fleet.daemons["robot"])
    for name in ("robot", "base"):
        fleet.kill_link(runner(fleet, name))
    fleet.settle()
    fleet.heal(seconds=5)
    assert peers(fleet, "robot") == {"base": "connected"}
    assert fleet.listed() == [("Running", None)]


def test_links_to_an_ended_part_are_not_missed() -> None:
    fleet = linked_fleet()
    fleet.finish_runner(runner(fleet, "robot"), fleet.daemons["robot"])
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    link = runner(fleet, "base").link
    assert link is not None
    assert link.ended == {"robot"}


def test_lists_show_links_from_both_ends() -> None:
    fleet = linked_fleet()
    answer = fleet.answers[fleet.request(ListDataflows())]
    assert isinstance(answer, DataflowList)
    seen = {(link.machine, link.peer, link.state) for link in answer.dataflows[0].links}
    assert seen == {
        ("robot", "base", "connected"),
        ("base", "robot", "connected"),
        ("base", "arm", "connected"),
        ("arm", "base", "connected"),
    }
    report = fleet.answers[fleet.request(ClusterStatus())]
    assert isinstance(report, ClusterReport)
    (robot,) = [one for one in report.machines if one.daemon == "robot"]
    assert [(link.peer, link.state) for link in robot.links] == [("base", "connected")]


def test_a_stored_dataflow_keeps_its_phase_while_linking() -> None:
    fleet = fleet_of("robot", "base", "arm")
    fleet.walls.add(Wall(("robot", "base")))
    chain(fleet)
    fleet.settle()
    ((record, _),) = fleet.store.values()
    assert record.phase is Phase.LINKING
