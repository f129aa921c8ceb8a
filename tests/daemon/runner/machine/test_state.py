"""Decisions about a dataflow, without processes, sockets or a clock."""

from __future__ import annotations

import pytest
from support.runner.nodes import ALWAYS, ON_FAILURE, node
from support.runner.simulation import Simulation, pair

from dora_config.dataflow.resolved import RestartSettings
from dora_config.protocol.runner_events import (
    DataflowStarted,
    DataflowStopping,
    NodeFailed,
    NodeRestarting,
)
from dora_daemon.runner.machine import commands as c, events as e
from dora_daemon.runner.machine.node import STEADY_SECONDS, NodeState

# --- the start barrier


def test_no_node_starts_before_all_have_connected() -> None:
    sim = Simulation([node("a", outputs="x"), node("b", reads="a/x")]).start()
    sim.connect("a")
    assert not sim.started
    sim.connect("b")
    assert sim.of(c.SendGo) == [c.SendGo(("a", "b"))]
    assert sim.reports(DataflowStarted)


def test_a_node_that_an_operator_stopped_is_not_started_until_requested() -> None:
    nodes = [node("a", outputs="x"), node("b", reads="a/x"), node("c")]
    sim = Simulation(nodes, stopped=("a",), hold_at_barrier=True).start()
    assert set(sim.processes) == {"b", "c"}
    sim.connect_all()
    assert sim.state.phase == "ready"
    sim.handle(e.BarrierReleased())
    assert sim.of(c.SendGo) == [c.SendGo(("b", "c"))]
    assert sim.state.closed_inputs("b") == ("a_x",)
    sim.handle(e.NodeRestartRequested("a", 1.0))
    sim.connect("a")
    assert sim.state.closed_inputs("b") == ()
    assert sim.result is None


def test_a_held_barrier_opens_on_release_and_only_once() -> None:
    sim = Simulation([node("a"), node("b")], hold_at_barrier=True).start().connect_all()
    assert sim.state.phase == "ready"
    assert not sim.started
    sim.handle(e.BarrierReleased())
    sim.handle(e.BarrierReleased())
    assert len(sim.of(c.SendGo)) == 1


def test_nodes_that_end_at_once_are_reported_after_the_release() -> None:
    sim = Simulation([node("s", kind="shell")], hold_at_barrier=True).start()
    sim.exit("s", 0)
    assert sim.state.phase == "ready"
    assert sim.result is None  # other machines may still be starting
    sim.handle(e.BarrierReleased())
    assert sim.reports(DataflowStarted)
    assert sim.result is not None
    assert sim.result.ok


def test_a_stop_before_the_release_ends_nodes_that_have_ended() -> None:
    sim = Simulation([node("s", kind="shell")], hold_at_barrier=True).start()
    sim.exit("s", 0)
    sim.stop(force=True)
    assert sim.result is not None
    assert not sim.started


def test_a_release_before_the_nodes_connect_counts() -> None:
    sim = Simulation([node("a"), node("b")], hold_at_barrier=True).start()
    sim.handle(e.BarrierReleased())
    sim.connect_all()
    assert sim.started


def test_dynamic_nodes_and_programs_without_ports_need_not_connect() -> None:
    sim = Simulation(
        [
            node("a", outputs="x"),
            node("d", path="dynamic", kind="dynamic", outputs="x"),
            node("p"),
            node("s", kind="shell"),
        ]
    ).start()
    sim.connect("a")
    assert not sim.started
    sim.pass_time(STEADY_SECONDS)
    assert sim.started
    assert "d" not in sim.processes


def test_a_program_without_ports_is_ready_once_it_has_run_for_a_moment() -> None:
    sim = Simulation([node("a")], hold_at_barrier=True).start()
    sim.pass_time(STEADY_SECONDS * 0.9)
    early = sim.state.phase
    sim.pass_time(STEADY_SECONDS * 0.2)
    assert (early, sim.state.phase) == ("starting", "ready")
    sim.handle(e.BarrierReleased())
    sim.connect("a")  # it may be a dora node without ports
    assert sim.of(c.SendGo)[-1] == c.SendGo(("a",))


@pytest.mark.parametrize("kind", ["standard", "shell"])
def test_a_program_without_ports_that_fails_at_once_fails_the_start(kind: str) -> None:
    sim = Simulation([node("p", kind=kind)], hold_at_barrier=True).start()
    sim.exit("p", 3)
    assert sim.result is not None
    assert sim.outcome("p") == ("failed", "exited with code 3")
    assert not sim.started


def test_a_start_waits_for_the_restart_of_a_program_without_ports() -> None:
    sim = Simulation([node("p", restart=ON_FAILURE)]).start()
    sim.exit("p", 1)
    assert sim.node("p").state is NodeState.BACKING_OFF
    sim.pass_time(STEADY_SECONDS)
    assert not sim.started
    sim.pass_time(STEADY_SECONDS + 10)
    assert sim.started


@pytest.mark.parametrize("kind", ["standard", "shell"])
def test_a_program_without_ports_that_fails_stops_only_an_unfinished_start(kind: str) -> None:
    nodes = [node("a", outputs="x"), node("p", kind=kind)]
    early, late = Simulation(nodes).start(), Simulation(nodes).start()
    early.exit("p", 3)
    early.connect("a")
    assert '"p" exited before connecting' in early.processes["a"].refusals[0]
    late.connect("a")
    late.pass_time(STEADY_SECONDS)
    late.exit("p", 3)
    assert late.started
    assert late.result is None
    assert early.outcome("p") == late.outcome("p") == ("failed", "exited with code 3")


def test_the_success_of_a_program_without_ports_stops_no_start() -> None:
    sim = Simulation([node("a", outputs="x"), node("p")]).start()
    sim.exit("p", 0)
    assert sim.outcome("p")[0] == "success"
    sim.connect("a")
    assert sim.started


def test_a_failure_before_connecting_stops_the_start() -> None:
    sim = Simulation([node("a", outputs="x"), node("b", reads="a/x"), node("c")]).start()
    sim.connect("b")
    sim.exit("a", 1)
    assert sim.outcome("a")[0] == "failed"
    assert sim.outcome("a")[1] == "exited with code 1 before it connected to the dataflow"
    assert "exited before connecting" in sim.processes["b"].refusals[0]
    assert not sim.processes["b"].signals
    sim.exit("b", 1)
    sim.connect("c")
    assert '"a" exited before connecting' in sim.processes["c"].refusals[0]
    sim.exit("c", 1)
    assert sim.result is not None
    assert [r.node for r in sim.result.root_causes] == ["a"]
    assert [(r.node, r.caused_by) for r in sim.result.cascading] == [("b", "a"), ("c", "a")]
    assert not sim.started


def test_a_node_that_fails_by_itself_meanwhile_is_a_root_cause() -> None:
    sim = Simulation([node(name, outputs="x") for name in "abc"]).start()
    sim.exit("a", 1)
    sim.exit("b", 2)
    sim.connect("c")
    sim.exit("c", 0)
    assert sim.result is not None
    assert [r.node for r in sim.result.root_causes] == ["a", "b"]
    assert [r.node for r in sim.result.cascading] == ["c"]


def test_after_a_failed_start_remaining_processes_are_killed() -> None:
    sim = Simulation([node("a", outputs="x"), node("b"), node("s", kind="shell")]).start()
    sim.exit("a", 0)
    sim.pass_time(10.0)
    assert sim.processes["b"].signals == ["SIGTERM"]
    assert sim.processes["s"].signals == ["SIGTERM"]
    sim.pass_time(5.0)
    assert sim.processes["b"].signals == ["SIGTERM", "SIGKILL"]


def test_a_node_waiting_for_its_restart_ends_with_a_failed_start() -> None:
    sim = Simulation([node("a", outputs="x", restart=ON_FAILURE), node("b")]).start()
    sim.exit("a", 1)
    sim.exit("b", 1)
    assert sim.outcome("a")[0] == "cascading"
    assert ("a", "backoff") not in sim.timers
    assert sim.result is not None


def test_success_before_connecting_is_fine_for_a_program_without_readers() -> None:
    sim = Simulation([node("a")]).start()
    sim.exit("a", 0)
    assert sim.result is not None
    assert sim.result.ok


def test_success_before_connecting_is_a_failure_for_a_node_with_ports() -> None:
    sim = Simulation([node("a", outputs="x")]).start()
    sim.exit("a", 0)
    outcome, message = sim.outcome("a")
    assert outcome == "failed"
    assert "never created a dora `Node()`" in message


def test_a_spawn_that_fails_is_reported_and_breaks_the_barrier() -> None:
    sim = Simulation([node("a"), node("b")])
    commands = sim.state.handle(e.Prepared(), 0.0)
    spawn = next(x for x in commands if isinstance(x, c.SpawnNode))
    sim.state.handle(e.SpawnFailed("a", spawn.incarnation, "no such file"), 0.0)
    assert sim.outcome("a")[1] == "failed to spawn node: no such file"
    assert sim.node("b").state is NodeState.STOPPING


# --- ends


def test_a_dataflow_ends_when_every_node_has() -> None:
    sim = pair()
    sim.exit("a")
    assert c.AnnounceClosed("a") in sim.done
    assert sim.result is None
    sim.exit("b")
    assert sim.result is not None
    assert sim.result.ok
    assert sim.result.stop_reason is None


def test_a_failure_does_not_stop_the_others() -> None:
    sim = pair()
    sim.exit("a", 3)
    assert c.AnnounceFailed("a", "exited with code 3") in sim.done
    closed = sim.done.index(c.AnnounceClosed("a"))
    assert sim.done.index(c.AnnounceFailed("a", "exited with code 3")) < closed
    assert sim.processes["b"].signals == []
    sim.exit("b")
    assert sim.result is not None
    assert [r.message for r in sim.result.root_causes] == ["exited with code 3"]
    assert sim.result.root_causes[0].stderr_tail == ("last words",)
    assert sim.reports(NodeFailed)[0].result.node == "a"


def test_a_node_whose_inputs_ended_is_stopped_after_its_finish_grace() -> None:
    sim = Simulation([node("a", outputs="x"), node("b", reads="a/x", finish_grace=7.0)])
    sim.start().connect_all()
    sim.exit("a")
    sim.pass_time(6.9)
    assert sim.processes["b"].stops == 0
    sim.pass_time(0.2)
    assert sim.processes["b"].stops == 1
    sim.pass_time(10.0)
    assert sim.processes["b"].signals == ["SIGTERM"]
    sim.die("b", "SIGTERM")
    assert sim.outcome("b")[0] == "success"


def test_a_node_that_still_processes_its_queue_is_not_stopped() -> None:
    sim = pair()
    sim.exit("a")
    sim.pass_time(1000.0, busy=True)
    assert sim.processes["b"].stops == 0
    sim.pass_time(1000.0)
    assert sim.processes["b"].stops == 1


def test_finish_grace_can_be_disabled() -> None:
    sim = Simulation([node("a", outputs="x"), node("b", reads="a/x")], default_finish_grace=None)
    sim.start().connect_all()
    sim.exit("a")
    sim.pass_time(1e6)
    assert sim.processes["b"].stops == 0


def test_nodes_with_timers_only_end_with_the_others_if_configured() -> None:
    nodes = [node("a", outputs="x"), node("b", reads="a/x"), node("t", timer=True)]
    sim = Simulation(nodes, exit_when_nodes_finish=True).start().connect_all()
    sim.exit("a")
    sim.exit("b")
    assert sim.processes["t"].stops == 1
    patient = Simulation(nodes).start().connect_all()
    patient.exit("a")
    patient.exit("b")
    assert patient.processes["t"].stops == 0


def test_readers_of_logs_end_with_the_others() -> None:
    nodes = [node("a", outputs="x"), node("b", reads="a/x"), node("l", logs=True)]
    nodes.append(node("both", reads="a/x", logs=True))
    sim = Simulation(nodes).start().connect_all()
    sim.exit("a")
    assert sim.processes["l"].stops == 0
    sim.exit("b")
    assert sim.processes["l"].stops == 1
    assert sim.processes["both"].stops == 1
    alone = Simulation([node("l", logs=True), node("m", logs=True)]).start().connect_all()
    alone.exit("l")
    assert alone.processes["m"].stops == 0


def test_what_a_dataflow_waits_for_is_logged_once() -> None:
    nodes = [node("a", outputs="x"), node("c", reads="a/x s/r", outputs="q")]
    nodes += [node("s", reads="c/q", outputs="r"), node("l", logs=True)]
    sim = Simulation(nodes).start().connect_all()
    sim.pass_time(100.0)
    assert sim.logs() == []
    sim.exit("a")
    sim.pass_time(9.0)
    assert sim.logs() == []
    sim.pass_time(100.0)
    assert sim.logs() == [
        'the dataflow runs on: nodes "c", "s" read outputs of each other; node "l" reads '
        "dora/logs. Ctrl-C or `dora stop` ends it, `--exit-when-nodes-finish` lets such dataflows "
        "end by themselves"
    ]


def test_nodes_that_only_wait_for_each_other_end_if_configured() -> None:
    nodes = [node("a", outputs="x"), node("c", reads="a/x s/r", outputs="q", timer=True)]
    nodes.append(node("s", reads="c/q", outputs="r"))
    sim = Simulation(nodes, exit_when_nodes_finish=True).start().connect_all()
    sim.exit("a")
    sim.pass_time(100.0, busy=True)
    assert sim.processes["c"].stops == 0
    sim.pass_time(10.0)
    assert sim.processes["c"].stops == sim.processes["s"].stops == 1


def test_a_chain_that_a_timer_wakes_does_not_end() -> None:
    nodes = [node("a", outputs="x"), node("t", outputs="y", timer=True), node("r", reads="t/y")]
    sim = Simulation(nodes, exit_when_nodes_finish=True).start().connect_all()
    sim.exit("a")
    sim.pass_time(100.0)
    assert sim.processes["t"].stops == 0
    (line,) = sim.logs()
    assert 'node "r" reads outputs of the others; node "t" reads a timer' in line
    assert "--exit-when-nodes-finish" not in line


def test_a_part_of_a_dataflow_reports_that_only_timers_are_left() -> None:
    nodes = [node("a", outputs="x"), node("b", reads="a/x"), node("t", timer=True)]
    sim = Simulation(nodes, exit_when_nodes_finish=True, whole=False).start().connect_all()
    sim.exit("a")
    assert not sim.state.only_virtual_left
    sim.exit("b")
    assert sim.processes["t"].stops == 0
    assert sim.state.only_virtual_left
    sim.handle(e.NodeRestartRequested("b", 1.0))
    assert not sim.state.only_virtual_left


def test_a_part_with_timers_only_reports_it() -> None:
    nodes = [node("t", timer=True)]
    sim = Simulation(nodes, exit_when_nodes_finish=True, whole=False).start().connect_all()
    assert sim.state.only_virtual_left
    patient = Simulation(nodes, whole=False).start().connect_all()
    assert not patient.state.only_virtual_left
    logs = Simulation([node("l", logs=True)], whole=False).start().connect_all()
    assert logs.state.only_virtual_left


def test_a_dataflow_with_timers_only_does_not_end_at_once() -> None:
    sim = Simulation([node("t", timer=True)], exit_when_nodes_finish=True).start().connect_all()
    assert sim.processes["t"].stops == 0


def test_outputs_closed_by_the_node_end_inputs() -> None:
    sim = pair()
    sim.handle(e.OutputsClosed("a"))
    assert ("b", "finish") in sim.timers
    assert "a" in sim.processes


# --- stop


def test_a_stop_escalates_to_sigterm_and_sigkill() -> None:
    sim = pair()
    sim.stop()
    assert sim.processes["a"].stops == 1
    sim.pass_time(9.9)
    assert sim.processes["a"].signals == []
    sim.pass_time(0.1)
    assert sim.processes["a"].signals == ["SIGTERM"]
    sim.pass_time(5.0)
    assert sim.processes["a"].signals == ["SIGTERM", "SIGKILL"]
    sim.die("a", "SIGKILL")
    sim.exit("b")
    assert sim.result is not None
    assert sim.result.stop_reason == "stop requested"
    assert "didn't react to a stop message in time (15 s)" in sim.outcome("a")[1]
    assert sim.outcome("b") == ("success", "")


def test_the_grace_of_the_request_is_used() -> None:
    sim = pair()
    sim.stop(grace=2.0)
    sim.pass_time(2.0)
    assert sim.processes["a"].signals == ["SIGTERM"]
    sim.pass_time(1.0)
    assert sim.processes["a"].signals == ["SIGTERM", "SIGKILL"]


def test_force_kills_at_once_and_so_does_a_second_stop() -> None:
    sim = pair()
    sim.stop()
    sim.stop(force=True)
    assert sim.processes["a"].signals == ["SIGKILL"]
    assert [s.grace for s in sim.reports(DataflowStopping)] == [10.0, 0.0]
    sim.die("a", "SIGKILL")
    assert sim.outcome("a")[0] == "failed"


def test_a_process_that_never_connected_gets_signals_only() -> None:
    sim = Simulation([node("a"), node("b")]).start()
    sim.stop()
    assert sim.processes["a"].stops == 0
    assert sim.processes["a"].signals == ["SIGTERM"]
    sim.die("a", "SIGTERM")
    sim.die("b", "SIGTERM")
    assert sim.result is not None
    assert sim.result.ok


def test_stop_after_counts_from_the_opening_of_the_barrier() -> None:
    sim = Simulation([node("a", outputs="x")], stop_after=3.0).start()
    sim.pass_time(5.0)
    sim.connect_all()
    sim.pass_time(2.9)
    assert sim.processes["a"].stops == 0
    sim.pass_time(0.1)
    assert sim.processes["a"].stops == 1
    sim.exit("a")
    assert sim.result is not None
    assert sim.result.ok
    assert sim.result.stop_reason == "stop after 3 s"


def test_stop_after_ends_a_start_that_never_completes() -> None:
    sim = Simulation([node("a"), node("b", outputs="x")], stop_after=3.0).start()
    sim.connect("a")
    sim.pass_time(12.9)
    assert sim.processes["a"].stops == 0
    sim.pass_time(0.1)
    assert sim.processes["a"].stops == 1
    assert sim.processes["b"].signals == ["SIGTERM"]


def test_a_long_wait_for_nodes_names_them() -> None:
    sim = Simulation([node(name, outputs="x") for name in "abc"]).start()
    sim.connect("b")
    sim.pass_time(9.9)
    assert sim.logs() == []
    sim.pass_time(0.1)
    assert 'waiting for nodes "a", "c" to connect' in sim.logs()[-1]
    sim.connect("a")
    sim.pass_time(60.0)
    assert 'waiting for node "c" to connect' in sim.logs()[-1]
    sim.connect("c")
    count = len(sim.logs())
    sim.pass_time(600.0)
    assert len(sim.logs()) == count


def test_a_notice_names_a_limited_number_of_nodes() -> None:
    sim = Simulation([node(f"n{number}", outputs="x") for number in range(30)]).start()
    sim.pass_time(10.0)
    assert '"n9" and 20 more to connect' in sim.logs()[-1]


def test_a_dataflow_without_nodes_logs_that_it_runs_until_stopped() -> None:
    sim = Simulation([]).start()
    sim.pass_time(600.0)
    assert sim.logs() == ["the dataflow has no nodes: it runs until it is stopped"]
    sim.stop()
    assert sim.result is not None


def test_a_stop_cancels_pending_restarts() -> None:
    sim = Simulation([node("a", restart=ON_FAILURE), node("b")]).start().connect_all()
    sim.exit("a", 1)
    assert ("a", "backoff") in sim.timers
    sim.stop()
    assert sim.outcome("a")[0] == "success"
    sim.exit("b")
    assert sim.result is not None
    assert len(sim.spawns) == 2


def test_after_a_stop_nothing_is_restarted() -> None:
    sim = Simulation([node("a", restart=ALWAYS)]).start().connect_all()
    sim.stop()
    sim.exit("a", 1)
    assert len(sim.spawns) == 1
    assert sim.outcome("a") == ("failed", "exited with code 1")


# --- restart


def test_a_restart_keeps_consumers_going() -> None:
    sim = Simulation([node("a", outputs="x", restart=ON_FAILURE), node("b", reads="a/x")])
    sim.start().connect_all()
    sim.die("a", "SIGKILL")
    assert c.AnnounceRestarted("a") in sim.done
    assert not sim.of(c.AnnounceClosed)
    assert sim.reports(NodeRestarting)[0].delay == 1.0
    assert sim.result is None
    sim.pass_time(1.0)
    assert sim.node("a").restarts == 1
    sim.connect("a")
    assert sim.processes["a"].released


def test_a_source_without_inputs_is_restarted() -> None:
    sim = Simulation([node("a", restart=ALWAYS)]).start().connect_all()
    for count in range(1, 4):
        sim.exit("a", 0)
        assert sim.node("a").restarts == count


def test_always_ends_once_all_inputs_ended_and_are_empty() -> None:
    sim = Simulation([node("a", outputs="x"), node("b", reads="a/x", restart=ALWAYS)])
    sim.start().connect_all()
    sim.exit("a")
    sim.exit("b", 0, drained=False)
    assert sim.spawns[-1].node == "b"
    sim.connect("b")
    assert c.RepeatClosed("b", ("a_x",)) in sim.done
    sim.exit("b", 0)
    assert sim.result is not None
    assert sim.result.ok


def test_too_many_restarts_fail_the_node() -> None:
    settings = RestartSettings(policy="on-failure", max_restarts=2)
    sim = Simulation([node("a", restart=settings)]).start().connect_all()
    for _ in range(3):
        sim.connect_all()
        sim.exit("a", 1)
    assert sim.outcome("a") == ("failed", "exited with code 1; max restarts (2) exceeded")
    assert any("max restarts (2) exceeded" in line for line in sim.logs())


def test_a_node_that_restarts_before_the_start_does_not_stop_it() -> None:
    sim = Simulation([node("a", outputs="x", restart=ON_FAILURE), node("b", reads="a/x")]).start()
    sim.connect("b")
    sim.exit("a", 1)
    assert not sim.processes["b"].refusals
    sim.pass_time(1.0)
    sim.connect("a")
    assert sim.started
    assert sim.processes["b"].released


def test_operator_hosts_are_neither_restarted_nor_health_checked() -> None:
    sim = Simulation([node("a", kind="runtime", restart=ALWAYS, health_check_timeout=1.0)])
    sim.start().connect_all()
    sim.handle(e.NodeStalled("a", sim.processes["a"].incarnation, 9.0))
    assert sim.processes["a"].signals == []
    sim.exit("a", 1)
    assert sim.result is not None


# --- health and start


def test_a_stalled_node_is_killed_and_its_policy_applies() -> None:
    spec = node("a", restart=ON_FAILURE, health_check_timeout=5.0)
    sim = Simulation([spec]).start().connect_all()
    sim.handle(e.NodeStalled("a", sim.processes["a"].incarnation, 5.3))
    assert sim.processes["a"].signals == ["SIGKILL"]
    sim.die("a", "SIGKILL")
    assert sim.node("a").health_kills == 1
    reason = sim.reports(NodeRestarting)[0].reason
    assert reason == (
        "was killed: its process could not run for 5.3 s: stopped, frozen or stuck in the kernel"
        " (health_check_timeout 5 s)"
    )


def test_a_node_that_overwrites_shared_memory_is_killed_whatever_its_kind() -> None:
    nodes = [node("a", restart=ON_FAILURE), node("b", kind="runtime")]
    sim = Simulation(nodes).start().connect_all()
    for name in ("a", "b"):
        sim.handle(e.NodeCorrupted(name, sim.processes[name].incarnation, "x -> y: 9 of 3"))
        assert sim.processes[name].signals == ["SIGKILL"]
    sim.die("a", "SIGKILL")
    reason = sim.reports(NodeRestarting)[0].reason
    assert "it has overwritten its part of the dataflow's shared memory (x -> y: 9 of 3)" in reason


def test_a_node_that_does_not_connect_in_time_is_killed() -> None:
    sim = Simulation([node("a", startup_timeout=2.0), node("b")]).start()
    sim.connect("b")
    sim.pass_time(2.0)
    assert sim.processes["a"].signals == ["SIGKILL"]
    sim.die("a", "SIGKILL")
    assert "did not connect within 2 s (startup_timeout)" in sim.outcome("a")[1]


def test_startup_timeout_is_cancelled_by_the_connection() -> None:
    sim = Simulation([node("a", startup_timeout=2.0)]).start().connect_all()
    sim.pass_time(10.0)
    assert sim.processes["a"].signals == []
