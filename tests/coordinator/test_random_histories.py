"""Invariants of a simulated fleet under random histories of faults."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st
from support.simulation.fleets import SimulatedFleet, dataflow, pipeline
from support.simulation.machines import SimulatedDaemon, SimulatedRunner

from dora_config.protocol.control import StopDataflow
from dora_coordinator.state.records import Phase
from dora_testing.cluster.link import Wall

OPERATIONS = (
    "start",
    "start",
    "stop",
    "to_coordinator",
    "to_coordinator",
    "to_daemon",
    "to_daemon",
    "news",
    "news",
    "runner",
    "runner",
    "disconnect",
    "connect",
    "connect",
    "kill_daemon",
    "end_daemon",
    "start_daemon",
    "kill_coordinator",
    "start_coordinator",
    "copy",
    "promote",
    "kill_runner",
    "reboot",
    "time",
    "finish",
    "link",
    "link",
    "kill_link",
    "wall",
    "no_walls",
)

histories = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 11)), max_size=60)


def _pick(fleet: SimulatedFleet, number: int) -> SimulatedDaemon:
    return list(fleet.daemons.values())[number % len(fleet.daemons)]


def _pick_runner(
    fleet: SimulatedFleet, number: int
) -> tuple[SimulatedRunner, SimulatedDaemon] | None:
    living = [(r, d) for d in fleet.daemons.values() for r in d.runners if r.lives]
    return living[number % len(living)] if living else None


def _apply(fleet: SimulatedFleet, operation: str, number: int, stopped: set[str]) -> None:
    daemon = _pick(fleet, number)
    match operation:
        case "start":
            machines = {"here": daemon.machine_id, "there": _pick(fleet, number + 1).machine_id}
            if number % 3:
                fleet.start(pipeline(**machines, allow_unlinked=number % 3 == 2))
            else:
                fleet.start(dataflow(**machines))
        case "stop" if fleet.coordinator is not None:
            live = fleet.coordinator.registry.live()
            if live:
                chosen = live[number % len(live)]
                stopped.add(chosen.id)
                fleet.request(StopDataflow(dataflow=chosen.id))
        case "to_coordinator":
            fleet.step_to_coordinator(daemon)
        case "to_daemon":
            fleet.step_to_daemon(daemon)
        case "news":
            fleet.step_runner_event(daemon)
        case "wall":
            fleet.walls.add(Wall(("a", "b")))
        case "no_walls":
            fleet.walls.clear()
        case "runner" | "kill_runner" | "finish" | "link" | "kill_link":
            picked = _pick_runner(fleet, number)
            if picked is not None and operation == "runner":
                fleet.step_runner(*picked)
            elif picked is not None and operation == "kill_runner":
                fleet.kill_runner(*picked)
            elif picked is not None and operation == "link":
                fleet.step_link(*picked)
            elif picked is not None and operation == "kill_link":
                fleet.kill_link(picked[0])
            elif picked is not None and picked[0].phase == "running":
                stopped.add(picked[0].dataflow_id)
                fleet.finish_runner(*picked)
        case "disconnect":
            fleet.disconnect(daemon)
        case "connect" if daemon.connection is None:
            fleet.connect(daemon)
        case "kill_daemon" if daemon.agent is not None:
            fleet.kill_daemon(daemon)
        case "end_daemon" if daemon.agent is not None:
            fleet.end_daemon(daemon)
        case "start_daemon" if daemon.agent is None:
            fleet.start_daemon(daemon)
        case "kill_coordinator" if fleet.coordinator is not None:
            fleet.kill_coordinator()
        case "start_coordinator" if fleet.coordinator is None:
            fleet.start_coordinator()
        case "copy":
            fleet.send_copy()
        case "promote":
            fleet.promote()
        case "reboot":
            fleet.reboot(daemon)
        case "time":
            fleet.now += number * number  # up to two minutes
            fleet.fire_due()


def _check_always(fleet: SimulatedFleet) -> None:
    for daemon in fleet.daemons.values():
        ids = [runner.dataflow_id for runner in daemon.runners if runner.lives]
        assert len(ids) == len(set(ids)), "a node runs twice"
    if fleet.coordinator is None:
        return
    for known in fleet.coordinator.registry:
        record, _ = fleet.store[known.id]
        assert record.phase == known.phase, "a phase was not stored"


def _check_healed(fleet: SimulatedFleet, stopped: set[str]) -> None:
    """Check after all faults have ended that every reported state is the real one."""
    assert fleet.coordinator is not None
    for known in fleet.coordinator.registry:
        living = {
            (daemon.key, node)
            for daemon in fleet.daemons.values()
            for runner in daemon.living(known.id)
            for node in runner.nodes
        }
        if known.has_ended:
            assert not living, f"{known.phase} ({known.reason}), but {living} run"
            continue
        assert known.phase is Phase.RUNNING, f"{known.phase}, {known.status()}"
        assert known.status()[0] == "Running"
        expected = {
            (part.daemon, node)
            for part in known.parts.values()
            if not part.ended
            for node in part.nodes
        }
        assert living == expected
        _check_linked(fleet, known.id)
    for dataflow_id, (record, _) in fleet.store.items():
        if dataflow_id in stopped or record.phase is not Phase.FAILED:
            continue
        assert record.reason, "failed without a reason"


def _check_linked(fleet: SimulatedFleet, dataflow_id: str) -> None:
    """Check that all living runners with a shared edge are linked to each other's current run."""
    links = {
        runner.link.machine: runner.link
        for daemon in fleet.daemons.values()
        for runner in daemon.living(dataflow_id)
        if runner.link is not None
    }
    for link in links.values():
        for peer in link.peer_names & links.keys():
            assert link.known[peer].run_id == links[peer].run_id, "linked to an earlier run"
            assert link.peers[peer].state == "connected"


def two_daemons() -> SimulatedFleet:
    fleet = SimulatedFleet()
    fleet.add_daemon("a", "a")
    fleet.add_daemon("b", "b")
    fleet.settle()
    return fleet


@given(histories)
@settings(max_examples=150)
def test_reported_states_are_true_after_any_history_of_faults(
    history: list[tuple[str, int]],
) -> None:
    fleet = two_daemons()
    stopped: set[str] = set()
    for operation, number in history:
        _apply(fleet, operation, number, stopped)
        _check_always(fleet)
    fleet.heal()
    _check_always(fleet)
    _check_healed(fleet, stopped)


@given(histories)
@settings(max_examples=80)
def test_a_dataflow_that_users_do_not_stop_runs_after_any_history_of_faults(
    history: list[tuple[str, int]],
) -> None:
    fleet = two_daemons()
    fleet.start(pipeline(here="a", there="b"))
    fleet.settle()
    (dataflow_id,) = fleet.store
    for operation, number in history:
        if operation not in ("start", "stop", "finish", "end_daemon"):
            _apply(fleet, operation, number, set())
            _check_always(fleet)
    fleet.heal()
    assert fleet.store[dataflow_id][0].phase is Phase.RUNNING
    for daemon in fleet.daemons.values():
        assert len(daemon.living(dataflow_id)) == 1
