"""A dataflow's life, decided without a process, a socket or a clock."""

from __future__ import annotations

import pytest
from daemon.runner.dataflows import node
from daemon.runner.world import World

from dora_config.dataflow.resolved import RestartSettings
from dora_config.protocol.runner import (
    DataflowStarted,
    DataflowStopping,
    NodeFailed,
    NodeRestarting,
    NodesReady,
    WaitingChanged,
)
from dora_daemon.runner.machine import commands as c
from dora_daemon.runner.machine import events as e

ALWAYS = RestartSettings(policy="always")
ON_FAILURE = RestartSettings(policy="on-failure", delay=1.0, max_delay=4.0)


def pair() -> World:
    """A source and a sink that both run."""
    world = World([node("a", outputs="x"), node("b", reads="a/x")])
    return world.start().connect_all()


# --- the start barrier


def test_nobody_goes_before_everybody_has_connected() -> None:
    world = World([node("a", outputs="x"), node("b", reads="a/x")]).start()
    world.connect("a")
    assert not world.went
    world.connect("b")
    assert world.of(c.SendGo) == [c.SendGo(("a", "b"))]
    assert world.reports(DataflowStarted)


def test_a_held_barrier_opens_on_release_and_only_once() -> None:
    world = World([node("a"), node("b")], hold_at_barrier=True).start().connect_all()
    assert world.reports(NodesReady)
    assert world.state.phase == "ready"
    assert not world.went
    world.handle(e.Released())
    world.handle(e.Released())
    assert len(world.of(c.SendGo)) == 1


def test_a_release_that_comes_before_the_nodes_counts() -> None:
    world = World([node("a"), node("b")], hold_at_barrier=True).start()
    world.handle(e.Released())
    world.connect_all()
    assert world.went


def test_dynamic_nodes_and_portless_shell_nodes_are_not_waited_for() -> None:
    nodes = [node("a"), node("d", path="dynamic", kind="dynamic"), node("s", kind="shell")]
    world = World(nodes).start()
    world.connect("a")
    assert world.went
    assert "d" not in world.processes


def test_one_that_ends_before_it_connects_brings_the_waiting_down() -> None:
    world = World([node("a", outputs="x"), node("b", reads="a/x"), node("c")]).start()
    world.connect("b")
    world.exit("a", 1)
    assert world.outcome("a")[0] == "failed"
    assert world.outcome("a")[1] == "exited with code 1 before it connected to the dataflow"
    assert "exited before connecting" in world.processes["b"].refusals[0]
    assert not world.processes["b"].signals
    world.exit("b", 1)
    world.connect("c")
    assert '"a" exited before connecting' in world.processes["c"].refusals[0]
    world.exit("c", 1)
    assert world.result is not None
    assert [r.node for r in world.result.root_causes] == ["a"]
    assert [(r.node, r.caused_by) for r in world.result.cascading] == [("b", "a"), ("c", "a")]
    assert not world.went


def test_one_that_fails_by_itself_meanwhile_is_a_cause_of_its_own() -> None:
    world = World([node("a"), node("b"), node("c")]).start()
    world.exit("a", 1)
    world.exit("b", 2)
    world.connect("c")
    world.exit("c", 0)
    assert world.result is not None
    assert [r.node for r in world.result.root_causes] == ["a", "b"]
    assert [r.node for r in world.result.cascading] == ["c"]


def test_after_a_broken_barrier_stragglers_are_ended() -> None:
    world = World([node("a", outputs="x"), node("b"), node("s", kind="shell")]).start()
    world.exit("a", 0)
    world.pass_time(10.0)
    assert world.processes["b"].signals == ["SIGTERM"]
    assert world.processes["s"].signals == ["SIGTERM"]
    world.pass_time(5.0)
    assert world.processes["b"].signals == ["SIGTERM", "SIGKILL"]


def test_success_before_connecting_is_fine_for_a_program_that_nobody_waits_for() -> None:
    world = World([node("a")]).start()
    world.exit("a", 0)
    assert world.result is not None
    assert world.result.ok


def test_success_before_connecting_is_a_failure_for_a_node_with_ports() -> None:
    world = World([node("a", outputs="x")]).start()
    world.exit("a", 0)
    outcome, message = world.outcome("a")
    assert outcome == "failed"
    assert "never created a dora `Node()`" in message


def test_a_spawn_that_fails_is_reported_and_breaks_the_barrier() -> None:
    world = World([node("a"), node("b")])
    commands = world.state.handle(e.Prepared(), 0.0)
    spawn = next(x for x in commands if isinstance(x, c.SpawnNode))
    world.state.handle(e.SpawnFailed("a", spawn.incarnation, "no such file"), 0.0)
    assert world.state.nodes["a"].result is not None
    assert world.state.nodes["a"].result.message == "failed to spawn node: no such file"
    assert world.state.nodes["b"].broken_by == "a"


# --- ends


def test_a_dataflow_ends_when_every_node_has() -> None:
    world = pair()
    world.exit("a")
    assert c.AnnounceClosed("a") in world.done
    assert world.result is None
    world.exit("b")
    assert world.result is not None
    assert world.result.ok
    assert world.result.stop_reason is None


def test_a_failure_does_not_stop_the_others() -> None:
    world = pair()
    world.exit("a", 3)
    assert c.AnnounceFailed("a", "exited with code 3") in world.done
    closed = world.done.index(c.AnnounceClosed("a"))
    assert world.done.index(c.AnnounceFailed("a", "exited with code 3")) < closed
    assert world.processes["b"].signals == []
    world.exit("b")
    assert world.result is not None
    assert [r.message for r in world.result.root_causes] == ["exited with code 3"]
    assert world.result.root_causes[0].stderr_tail == ("last words",)
    assert world.reports(NodeFailed)[0].result.node == "a"


def test_a_straggler_is_stopped_after_its_finish_grace() -> None:
    world = World([node("a", outputs="x"), node("b", reads="a/x", finish_grace=7.0)])
    world.start().connect_all()
    world.exit("a")
    world.pass_time(6.9)
    assert world.processes["b"].stops == []
    world.pass_time(0.2)
    assert world.processes["b"].stops == ["MANUAL"]
    world.pass_time(10.0)
    assert world.processes["b"].signals == ["SIGTERM"]
    world.die("b", "SIGTERM")
    assert world.outcome("b")[0] == "success"


def test_a_straggler_that_works_through_its_backlog_is_left_alone() -> None:
    world = pair()
    world.exit("a")
    world.pass_time(1000.0, busy=True)
    assert world.processes["b"].stops == []
    world.pass_time(1000.0)
    assert world.processes["b"].stops == ["MANUAL"]


def test_finish_grace_may_be_switched_off() -> None:
    world = World([node("a", outputs="x"), node("b", reads="a/x")], default_finish_grace=None)
    world.start().connect_all()
    world.exit("a")
    world.pass_time(1e6)
    assert world.processes["b"].stops == []


def test_timers_alone_end_with_the_others_when_that_is_wanted() -> None:
    nodes = [node("a", outputs="x"), node("b", reads="a/x"), node("t", timer=True)]
    world = World(nodes, exit_when_nodes_finish=True).start().connect_all()
    world.exit("a")
    world.exit("b")
    assert world.processes["t"].stops == ["MANUAL"]
    patient = World(nodes).start().connect_all()
    patient.exit("a")
    patient.exit("b")
    assert patient.processes["t"].stops == []


def test_where_nodes_run_elsewhere_too_it_is_told_and_decided_there() -> None:
    nodes = [node("a", outputs="x"), node("b", reads="a/x"), node("t", timer=True)]
    world = World(nodes, exit_when_nodes_finish=True, whole=False).start().connect_all()
    world.exit("a")
    assert not world.reports(WaitingChanged)
    world.exit("b")
    assert world.processes["t"].stops == []
    assert [told.only_virtual_left for told in world.reports(WaitingChanged)] == [True]
    world.handle(e.NodeRestartRequested("b", 1.0))
    assert [told.only_virtual_left for told in world.reports(WaitingChanged)] == [True, False]


def test_a_part_of_timers_alone_tells_so_once() -> None:
    nodes = [node("t", timer=True)]
    world = World(nodes, exit_when_nodes_finish=True, whole=False).start().connect_all()
    assert [told.only_virtual_left for told in world.reports(WaitingChanged)] == [True]
    patient = World(nodes, whole=False).start().connect_all()
    assert not patient.reports(WaitingChanged)


def test_a_dataflow_of_timers_alone_is_not_finished_at_once() -> None:
    world = World([node("t", timer=True)], exit_when_nodes_finish=True).start().connect_all()
    assert world.processes["t"].stops == []


def test_outputs_closed_by_hand_close_inputs() -> None:
    world = pair()
    world.handle(e.OutputsClosed("a"))
    assert ("b", "finish") in world.timers
    assert "a" in world.processes


# --- stop


def test_the_ladder_of_a_stop() -> None:
    world = pair()
    world.stop()
    assert world.processes["a"].stops == ["MANUAL"]
    world.pass_time(9.9)
    assert world.processes["a"].signals == []
    world.pass_time(0.1)
    assert world.processes["a"].signals == ["SIGTERM"]
    world.pass_time(5.0)
    assert world.processes["a"].signals == ["SIGTERM", "SIGKILL"]
    world.die("a", "SIGKILL")
    world.exit("b")
    assert world.result is not None
    assert world.result.stop_reason == "stop requested"
    assert "didn't react to a stop message in time (15 s)" in world.outcome("a")[1]
    assert world.outcome("b") == ("success", "")


def test_grace_of_the_request_wins() -> None:
    world = pair()
    world.stop(grace=2.0)
    world.pass_time(2.0)
    assert world.processes["a"].signals == ["SIGTERM"]
    world.pass_time(1.0)
    assert world.processes["a"].signals == ["SIGTERM", "SIGKILL"]


def test_force_kills_at_once_and_so_does_a_second_stop() -> None:
    world = pair()
    world.stop()
    world.stop(force=True)
    assert world.processes["a"].signals == ["SIGKILL"]
    assert [s.grace for s in world.reports(DataflowStopping)] == [10.0, 0.0]
    world.die("a", "SIGKILL")
    assert world.outcome("a")[0] == "failed"


def test_what_never_connected_gets_signals_only() -> None:
    world = World([node("a"), node("b")]).start()
    world.stop()
    assert world.processes["a"].stops == []
    assert world.processes["a"].signals == ["SIGTERM"]
    world.die("a", "SIGTERM")
    world.die("b", "SIGTERM")
    assert world.result is not None
    assert world.result.ok


def test_stop_after_counts_from_the_opening_of_the_barrier() -> None:
    world = World([node("a")], stop_after=3.0).start()
    world.pass_time(5.0)
    world.connect_all()
    world.pass_time(2.9)
    assert world.processes["a"].stops == []
    world.pass_time(0.1)
    assert world.processes["a"].stops == ["MANUAL"]
    world.exit("a")
    assert world.result is not None
    assert world.result.ok
    assert world.result.stop_reason == "stop after 3 s"


def test_stop_after_ends_a_start_that_does_not_come_about() -> None:
    world = World([node("a"), node("b")], stop_after=3.0).start()
    world.connect("a")
    world.pass_time(12.9)
    assert world.processes["a"].stops == []
    world.pass_time(0.1)
    assert world.processes["a"].stops == ["MANUAL"]
    assert world.processes["b"].signals == ["SIGTERM"]


def test_a_long_wait_for_nodes_names_them() -> None:
    world = World([node("a"), node("b"), node("c")]).start()
    world.connect("b")
    world.pass_time(9.9)
    assert world.of(c.Say) == []
    world.pass_time(0.1)
    assert 'waiting for nodes "a", "c" to connect' in world.of(c.Say)[-1].message
    world.connect("a")
    world.pass_time(60.0)
    assert 'waiting for node "c" to connect' in world.of(c.Say)[-1].message
    world.connect("c")
    said = len(world.of(c.Say))
    world.pass_time(600.0)
    assert len(world.of(c.Say)) == said


def test_a_notice_does_not_name_them_all() -> None:
    world = World([node(f"n{number}") for number in range(30)]).start()
    world.pass_time(10.0)
    assert '"n9" and 20 more to connect' in world.of(c.Say)[-1].message


def test_a_dataflow_without_nodes_says_why_it_waits() -> None:
    world = World([]).start()
    world.pass_time(600.0)
    assert [said.message for said in world.of(c.Say)] == [
        "the dataflow has no nodes: it waits until it is stopped"
    ]
    world.stop()
    assert world.result is not None


def test_a_stop_cancels_pending_restarts() -> None:
    world = World([node("a", restart=ON_FAILURE), node("b")]).start().connect_all()
    world.exit("a", 1)
    assert ("a", "backoff") in world.timers
    world.stop()
    assert world.outcome("a")[0] == "success"
    world.exit("b")
    assert world.result is not None
    assert len(world.spawns) == 2


def test_after_a_stop_nothing_is_restarted() -> None:
    world = World([node("a", restart=ALWAYS)]).start().connect_all()
    world.stop()
    world.exit("a", 1)
    assert len(world.spawns) == 1
    assert world.outcome("a") == ("failed", "exited with code 1")


# --- restart


def test_a_restart_keeps_consumers_going() -> None:
    world = World([node("a", outputs="x", restart=ON_FAILURE), node("b", reads="a/x")])
    world.start().connect_all()
    world.die("a", "SIGKILL")
    assert c.AnnounceRestarted("a") in world.done
    assert not world.of(c.AnnounceClosed)
    assert world.reports(NodeRestarting)[0].delay == 1.0
    assert world.result is None
    world.pass_time(1.0)
    assert world.spawns[-1].restarts == 1
    world.connect("a")
    assert world.processes["a"].going


def test_a_source_without_inputs_is_restarted() -> None:
    world = World([node("a", restart=ALWAYS)]).start().connect_all()
    for count in range(1, 4):
        world.exit("a", 0)
        assert world.spawns[-1].restarts == count


def test_always_ends_once_all_inputs_ended_and_are_empty() -> None:
    world = World([node("a", outputs="x"), node("b", reads="a/x", restart=ALWAYS)])
    world.start().connect_all()
    world.exit("a")
    world.exit("b", 0, drained=False)
    assert world.spawns[-1].node == "b"
    world.connect("b")
    assert c.AnnounceClosedAgain("b", ("a_x",)) in world.done
    world.exit("b", 0)
    assert world.result is not None
    assert world.result.ok


def test_too_many_restarts_fail_the_node() -> None:
    settings = RestartSettings(policy="on-failure", max_restarts=2)
    world = World([node("a", restart=settings)]).start().connect_all()
    for _ in range(3):
        world.connect_all()
        world.exit("a", 1)
    assert world.outcome("a") == ("failed", "exited with code 1; max restarts (2) exceeded")
    assert any("max restarts (2) exceeded" in said.message for said in world.of(c.Say))


def test_a_node_that_restarts_before_the_barrier_opened_keeps_its_place() -> None:
    world = World([node("a", outputs="x", restart=ON_FAILURE), node("b", reads="a/x")]).start()
    world.connect("b")
    world.exit("a", 1)
    assert not world.processes["b"].refusals
    world.pass_time(1.0)
    world.connect("a")
    assert world.went
    assert world.processes["b"].going


@pytest.mark.parametrize("kind", ["runtime"])
def test_operator_hosts_are_never_restarted_nor_killed_for_silence(kind: str) -> None:
    world = World([node("a", kind=kind, restart=ALWAYS, health_check_timeout=1.0)])
    world.start().connect_all()
    world.handle(e.NodeSilent("a", world.processes["a"].incarnation, 9.0))
    assert world.processes["a"].signals == []
    world.exit("a", 1)
    assert world.result is not None


# --- health and start


def test_a_silent_node_is_killed_and_its_policy_applies() -> None:
    spec = node("a", restart=ON_FAILURE, health_check_timeout=5.0)
    world = World([spec]).start().connect_all()
    world.handle(e.NodeSilent("a", world.processes["a"].incarnation, 5.3))
    assert world.processes["a"].signals == ["SIGKILL"]
    world.die("a", "SIGKILL")
    assert world.state.nodes["a"].health_kills == 1
    reason = world.reports(NodeRestarting)[0].reason
    assert reason == (
        "was killed: its process could not run for 5.3 s: stopped, frozen or stuck in the kernel"
        " (health_check_timeout 5 s)"
    )


def test_a_node_that_does_not_connect_in_time_is_killed() -> None:
    world = World([node("a", startup_timeout=2.0), node("b")]).start()
    world.connect("b")
    world.pass_time(2.0)
    assert world.processes["a"].signals == ["SIGKILL"]
    world.die("a", "SIGKILL")
    assert "did not connect within 2 s (startup_timeout)" in world.outcome("a")[1]


def test_startup_timeout_ends_with_the_connection() -> None:
    world = World([node("a", startup_timeout=2.0)]).start().connect_all()
    world.pass_time(10.0)
    assert world.processes["a"].signals == []


# --- one node by hand


def test_stopping_one_node_leaves_the_others_and_closes_its_outputs() -> None:
    world = pair()
    world.handle(e.NodeStopRequested("a", 10.0))
    assert world.processes["a"].stops == ["MANUAL"]
    world.exit("a")
    assert c.AnnounceClosed("a") in world.done
    assert world.result is None
    assert world.processes["b"].stops == []


def test_a_node_with_always_stays_down_when_stopped_by_hand() -> None:
    world = World([node("a", restart=ALWAYS), node("b")]).start().connect_all()
    world.handle(e.NodeStopRequested("a", 10.0))
    world.exit("a")
    assert len(world.spawns) == 2


def test_restart_by_hand_needs_no_policy_and_keeps_consumers() -> None:
    world = pair()
    world.handle(e.NodeRestartRequested("a", 5.0))
    world.pass_time(5.0)
    assert world.processes["a"].signals == ["SIGTERM"]
    world.die("a", "SIGTERM")
    assert c.AnnounceRestarted("a") in world.done
    assert not world.of(c.AnnounceClosed)
    world.connect("a")
    assert world.processes["a"].going
    assert world.result is None


def test_restart_by_hand_brings_an_ended_node_back() -> None:
    world = pair()
    world.exit("a", 1)
    world.handle(e.NodeRestartRequested("a", 5.0))
    world.connect("a")
    world.exit("a")
    world.exit("b")
    assert world.result is not None
    assert world.result.ok


def test_a_restart_by_hand_ends_the_wait_for_a_restart() -> None:
    world = World([node("a", restart=ON_FAILURE)]).start().connect_all()
    world.exit("a", 1)
    world.handle(e.NodeRestartRequested("a", 5.0))
    assert ("a", "backoff") not in world.timers
    assert len(world.spawns) == 2


# --- dynamic nodes


def with_dynamic() -> World:
    nodes = [node("a", outputs="x"), node("d", path="dynamic", kind="dynamic", reads="a/x")]
    return World(nodes).start().connect_all()


def test_a_dynamic_node_attaches_leaves_and_attaches_again() -> None:
    world = with_dynamic()
    world.attach("d")
    assert world.processes["d"].going
    world.detach("d")
    assert c.AnnounceClosed("d") in world.done
    world.attach("d")
    assert world.processes["d"].going


def test_a_dynamic_node_never_blocks_the_end_and_is_told_to_stop() -> None:
    world = with_dynamic()
    world.attach("d")
    world.exit("a")
    assert world.result is not None
    assert c.SendStop("d") in world.done


def test_only_one_process_may_attach() -> None:
    world = with_dynamic()
    world.attach("d")
    commands = world.state.handle(e.NodeConnected("d", None, 999), 0.0)
    # Nothing for the first one, which took a second Go for a fault of the runner.
    assert [type(command) for command in commands] == [c.Refuse]


def test_a_dynamic_node_gets_stop_and_no_signal() -> None:
    world = with_dynamic()
    world.attach("d")
    world.stop()
    assert world.processes["d"].stops == ["MANUAL"]
    world.pass_time(100.0)
    assert world.processes["d"].signals == []


def test_a_dataflow_of_dynamic_nodes_alone_waits_for_its_stop() -> None:
    world = World([node("d", path="dynamic", kind="dynamic")]).start()
    assert world.result is None
    world.stop()
    assert world.result is not None


def test_an_unknown_node_is_refused_with_the_known_ones() -> None:
    world = pair()
    commands = world.state.handle(e.NodeConnected("zz", None, 1), 0.0)
    assert isinstance(commands[0], c.Refuse)
    assert "a, b" in commands[0].message


# --- nodes and edges that come and go


def test_an_added_node_starts_at_once_and_goes_when_it_connects() -> None:
    world = pair()
    world.handle(e.NodeAdded(node("n", reads="a/x")))
    world.connect("n")
    assert world.processes["n"].going
    world.exit("a")
    world.exit("b")
    assert world.result is None
    world.exit("n")
    assert world.result is not None


def test_a_node_that_is_added_to_a_dataflow_that_stops_never_starts() -> None:
    world = pair()
    world.stop()
    world.handle(e.NodeAdded(node("n")))
    assert world.outcome("n")[0] == "success"
    world.exit("a")
    world.exit("b")
    assert world.result is not None


def test_a_removed_node_takes_its_edges_and_its_result_with_it() -> None:
    world = pair()
    world.handle(e.NodeStopRequested("a", 1.0))
    world.exit("a", 9)
    world.handle(e.NodeRemoved("a"))
    world.exit("b")
    assert world.result is not None
    assert world.result.ok
    assert [r.node for r in world.result.nodes] == ["b"]


def test_the_last_open_edge_removed_ends_the_inputs() -> None:
    world = World([node("a", outputs="x"), node("z", outputs="y"), node("b", reads="a/x z/y")])
    world.start().connect_all()
    world.exit("a")
    world.handle(e.EdgeRemoved("z", "y", "b", "z_y"))
    assert ("b", "finish") in world.timers


def test_an_older_process_that_says_hello_late_is_refused() -> None:
    world = World([node("a", restart=ALWAYS), node("b")]).start()
    old = world.processes["a"].incarnation
    world.exit("a", 1)
    commands = world.handle(e.NodeConnected("a", old, 1))
    assert [type(command) for command in commands] == [c.Refuse]
    assert not world.state.nodes["a"].connected


def test_news_of_an_older_process_is_ignored() -> None:
    world = World([node("a", restart=ALWAYS)]).start().connect_all()
    old = world.processes["a"].incarnation
    world.exit("a")
    assert world.handle(e.NodeExited("a", old, e.Exit(code=0))) == []
    assert world.handle(e.NodeSilent("a", old, 99.0)) == []
