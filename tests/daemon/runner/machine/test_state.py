"""Decisions about a dataflow, without processes, sockets or a clock."""

from __future__ import annotations

from support.runner.nodes import node
from support.runner.simulation import Simulation

from dora_config.dataflow.resolved import RestartSettings
from dora_config.protocol.runner import (
    DataflowStarted,
    DataflowStopping,
    NodeFailed,
    NodeRestarting,
    NodesReady,
    WaitingChanged,
)
from dora_daemon.runner.machine import commands as c, events as e
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.snapshot import NodeState

ALWAYS = RestartSettings(policy="always")
ON_FAILURE = RestartSettings(policy="on-failure", delay=1.0, max_delay=4.0)


def pair() -> Simulation:
    """A source and a sink that both run."""
    sim = Simulation([node("a", outputs="x"), node("b", reads="a/x")])
    return sim.start().connect_all()


# --- the start barrier


def test_no_node_starts_before_all_have_connected() -> None:
    sim = Simulation([node("a", outputs="x"), node("b", reads="a/x")]).start()
    sim.connect("a")
    assert not sim.started
    sim.connect("b")
    assert sim.of(c.SendGo) == [c.SendGo(("a", "b"))]
    assert sim.reports(DataflowStarted)


def test_a_held_barrier_opens_on_release_and_only_once() -> None:
    sim = Simulation([node("a"), node("b")], hold_at_barrier=True).start().connect_all()
    assert sim.reports(NodesReady)
    assert sim.state.phase == "ready"
    assert not sim.started
    sim.handle(e.BarrierReleased())
    sim.handle(e.BarrierReleased())
    assert len(sim.of(c.SendGo)) == 1


def test_a_release_before_the_nodes_connect_counts() -> None:
    sim = Simulation([node("a"), node("b")], hold_at_barrier=True).start()
    sim.handle(e.BarrierReleased())
    sim.connect_all()
    assert sim.started


def test_dynamic_nodes_and_portless_shell_nodes_are_not_waited_for() -> None:
    nodes = [node("a"), node("d", path="dynamic", kind="dynamic"), node("s", kind="shell")]
    sim = Simulation(nodes).start()
    sim.connect("a")
    assert sim.started
    assert "d" not in sim.processes


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
    sim = Simulation([node("a"), node("b"), node("c")]).start()
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
    sim = Simulation([node("a", restart=ON_FAILURE), node("b")]).start()
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


def test_a_part_of_a_dataflow_reports_that_only_timers_are_left() -> None:
    nodes = [node("a", outputs="x"), node("b", reads="a/x"), node("t", timer=True)]
    sim = Simulation(nodes, exit_when_nodes_finish=True, whole=False).start().connect_all()
    sim.exit("a")
    assert not sim.reports(WaitingChanged)
    sim.exit("b")
    assert sim.processes["t"].stops == 0
    assert [report.only_virtual_left for report in sim.reports(WaitingChanged)] == [True]
    sim.handle(e.NodeRestartRequested("b", 1.0))
    assert [report.only_virtual_left for report in sim.reports(WaitingChanged)] == [True, False]


def test_a_part_with_timers_only_reports_it_once() -> None:
    nodes = [node("t", timer=True)]
    sim = Simulation(nodes, exit_when_nodes_finish=True, whole=False).start().connect_all()
    assert [report.only_virtual_left for report in sim.reports(WaitingChanged)] == [True]
    patient = Simulation(nodes, whole=False).start().connect_all()
    assert not patient.reports(WaitingChanged)


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
    sim = Simulation([node("a")], stop_after=3.0).start()
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
    sim = Simulation([node("a"), node("b")], stop_after=3.0).start()
    sim.connect("a")
    sim.pass_time(12.9)
    assert sim.processes["a"].stops == 0
    sim.pass_time(0.1)
    assert sim.processes["a"].stops == 1
    assert sim.processes["b"].signals == ["SIGTERM"]


def test_a_long_wait_for_nodes_names_them() -> None:
    sim = Simulation([node("a"), node("b"), node("c")]).start()
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
    sim = Simulation([node(f"n{number}") for number in range(30)]).start()
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


# --- stop and restart of one node


def test_stopping_one_node_leaves_the_others_and_closes_its_outputs() -> None:
    sim = pair()
    sim.handle(e.NodeStopRequested("a", 10.0))
    assert sim.processes["a"].stops == 1
    sim.exit("a")
    assert c.AnnounceClosed("a") in sim.done
    assert sim.result is None
    assert sim.processes["b"].stops == 0


def test_a_stopped_node_with_policy_always_stays_down() -> None:
    sim = Simulation([node("a", restart=ALWAYS), node("b")]).start().connect_all()
    sim.handle(e.NodeStopRequested("a", 10.0))
    sim.exit("a")
    assert len(sim.spawns) == 2


def test_a_requested_restart_needs_no_policy_and_keeps_consumers() -> None:
    sim = pair()
    sim.handle(e.NodeRestartRequested("a", 5.0))
    sim.pass_time(5.0)
    assert sim.processes["a"].signals == ["SIGTERM"]
    sim.die("a", "SIGTERM")
    assert c.AnnounceRestarted("a") in sim.done
    assert not sim.of(c.AnnounceClosed)
    sim.connect("a")
    assert sim.processes["a"].released
    assert sim.result is None


def test_a_requested_restart_revives_an_ended_node() -> None:
    sim = pair()
    sim.exit("a", 1)
    sim.handle(e.NodeRestartRequested("a", 5.0))
    sim.connect("a")
    sim.exit("a")
    sim.exit("b")
    assert sim.result is not None
    assert sim.result.ok


def test_a_requested_restart_skips_the_delay_of_the_policy() -> None:
    sim = Simulation([node("a", restart=ON_FAILURE)]).start().connect_all()
    sim.exit("a", 1)
    sim.handle(e.NodeRestartRequested("a", 5.0))
    assert ("a", "backoff") not in sim.timers
    assert len(sim.spawns) == 2


# --- dynamic nodes


def with_dynamic() -> Simulation:
    nodes = [node("a", outputs="x"), node("d", path="dynamic", kind="dynamic", reads="a/x")]
    return Simulation(nodes).start().connect_all()


def test_a_dynamic_node_can_attach_repeatedly() -> None:
    sim = with_dynamic()
    sim.attach("d")
    assert sim.processes["d"].released
    sim.detach("d")
    assert c.AnnounceClosed("d") in sim.done
    sim.attach("d")
    assert sim.processes["d"].released


def test_the_end_does_not_wait_for_dynamic_nodes_and_stops_them() -> None:
    sim = with_dynamic()
    sim.attach("d")
    sim.exit("a")
    assert sim.result is not None
    assert c.SendStop("d") in sim.done


def test_only_one_process_may_attach() -> None:
    sim = with_dynamic()
    sim.attach("d")
    commands = sim.state.handle(e.NodeConnected("d", None, 999), 0.0)
    # nothing for the attached process: a second Go is an error there
    assert [type(command) for command in commands] == [c.Refuse]


def test_a_dynamic_node_gets_stop_and_no_signal() -> None:
    sim = with_dynamic()
    sim.attach("d")
    sim.stop()
    assert sim.processes["d"].stops == 1
    sim.pass_time(100.0)
    assert sim.processes["d"].signals == []


def test_a_dataflow_with_dynamic_nodes_only_runs_until_stopped() -> None:
    sim = Simulation([node("d", path="dynamic", kind="dynamic")]).start()
    assert sim.result is None
    sim.stop()
    assert sim.result is not None


def test_an_unknown_node_is_refused_with_the_known_ones() -> None:
    sim = pair()
    commands = sim.state.handle(e.NodeConnected("zz", None, 1), 0.0)
    assert isinstance(commands[0], c.Refuse)
    assert "a, b" in commands[0].message


# --- added and removed nodes and edges


def test_an_added_node_starts_at_once_without_a_barrier() -> None:
    sim = pair()
    sim.handle(e.NodeAdded(node("n", reads="a/x")))
    sim.connect("n")
    assert sim.processes["n"].released
    sim.exit("a")
    sim.exit("b")
    assert sim.result is None
    sim.exit("n")
    assert sim.result is not None


def test_a_node_added_to_a_stopping_dataflow_never_starts() -> None:
    sim = pair()
    sim.stop()
    sim.handle(e.NodeAdded(node("n")))
    assert sim.outcome("n")[0] == "success"
    sim.exit("a")
    sim.exit("b")
    assert sim.result is not None


def test_removing_a_node_removes_its_edges_and_its_result() -> None:
    sim = pair()
    sim.handle(e.NodeStopRequested("a", 1.0))
    sim.exit("a", 9)
    sim.handle(e.NodeRemoved("a"))
    sim.exit("b")
    assert sim.result is not None
    assert sim.result.ok
    assert [r.node for r in sim.result.nodes] == ["b"]


def test_removing_the_last_open_edge_ends_the_inputs() -> None:
    sim = Simulation([node("a", outputs="x"), node("z", outputs="y"), node("b", reads="a/x z/y")])
    sim.start().connect_all()
    sim.exit("a")
    sim.handle(e.EdgeRemoved(Edge("z", "y", "b", "z_y")))
    assert ("b", "finish") in sim.timers


def test_a_late_hello_of_a_former_process_is_refused() -> None:
    sim = Simulation([node("a", restart=ALWAYS), node("b")]).start()
    old = sim.processes["a"].incarnation
    sim.exit("a", 1)
    commands = sim.handle(e.NodeConnected("a", old, 1))
    assert [type(command) for command in commands] == [c.Refuse]
    assert not sim.node("a").connected


def test_events_of_a_former_process_are_ignored() -> None:
    sim = Simulation([node("a", restart=ALWAYS)]).start().connect_all()
    old = sim.processes["a"].incarnation
    sim.exit("a")
    assert sim.handle(e.NodeExited("a", old, e.Exit(code=0))) == []
    assert sim.handle(e.NodeStalled("a", old, 99.0)) == []


def test_a_replacement_is_staged_and_promoted_after_the_former_process_ended() -> None:
    sim = pair()
    (stage,) = sim.handle(e.ReplacementPrepared("a"))
    assert isinstance(stage, c.StageReplacement)
    assert stage.incarnation > sim.node("b").incarnation
    sim.handle(e.ReplacementConnected(node("a", outputs="x"), stage.incarnation, 1.0))
    assert sim.processes["a"].stops == 1
    former = sim.processes.pop("a")
    commands = sim.handle(e.NodeExited("a", former.incarnation, e.Exit(code=0)))
    assert c.PromoteReplacement("a", stage.incarnation) in commands
    assert c.AnnounceRestarted("a") in commands
    assert not sim.of(c.AnnounceClosed)


def test_a_lost_source_is_announced_to_readers_once() -> None:
    sim = Simulation([node("b", reads="far/x")]).start().connect_all()
    assert c.AnnounceClosed("far", ("x",)) in sim.handle(e.SourceLost("far", "x"))
    assert sim.state.closed_inputs("b") == ("far_x",)
    assert sim.handle(e.SourceLost("far", "x")) == []


def test_a_lost_replacement_starts_the_former_program_again() -> None:
    sim = pair()
    (stage,) = sim.handle(e.ReplacementPrepared("a"))
    assert isinstance(stage, c.StageReplacement)
    sim.handle(e.ReplacementConnected(node("a", outputs="x", path="b.py"), stage.incarnation, 1.0))
    sim.exit("a")
    commands = sim.handle(e.ReplacementLost("a", stage.incarnation))
    (spawn,) = [one for one in commands if isinstance(one, c.SpawnNode)]
    assert spawn.incarnation > stage.incarnation
    assert sim.node("a").state is NodeState.CONNECTING
    assert sim.handle(e.ReplacementLost("a", stage.incarnation)) == []


def test_a_new_program_starts_a_failed_node() -> None:
    sim = pair()
    sim.exit("a", code=1)
    commands = sim.handle(e.ProgramChanged(node("a", outputs="x", path="b.py")))
    assert [one.node for one in commands if isinstance(one, c.SpawnNode)] == ["a"]


def test_the_end_of_a_node_that_leaves_does_not_end_the_dataflow() -> None:
    sim = Simulation([node("a")]).start().connect_all()
    sim.handle(e.NodeStopRequested("a", 1.0, leaves=True))
    sim.exit("a")
    assert sim.state.result is None
    sim.handle(e.NodeRemoved("a"))
    assert sim.state.result is None
    sim.handle(e.NodeAdded(node("b")))
    sim.exit("b", code=1)  # before it connected: it is removed
    assert sim.state.result is None
    sim.handle(e.NodeRemoved("b"))
    sim.handle(e.NodeAdded(node("c")))
    sim.connect("c")
    assert sim.state.result is None
    sim.exit("c")
    assert sim.state.result is not None
