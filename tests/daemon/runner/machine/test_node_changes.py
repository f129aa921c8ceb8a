"""Nodes that stop, restart, attach, join and leave on request, without processes or a clock."""

from __future__ import annotations

from support.runner.nodes import ALWAYS, ON_FAILURE, node
from support.runner.simulation import Simulation, pair

from dora_daemon.runner.machine import commands as c, events as e
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.node import NodeState

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


def test_nodes_that_were_all_stopped_can_be_started_again() -> None:
    sim = Simulation([node("a")], hold_at_barrier=True).start().connect_all()
    sim.handle(e.BarrierReleased())
    sim.handle(e.NodeStopRequested("a", 10.0))
    sim.exit("a")
    assert sim.result is None
    sim.handle(e.NodeRestartRequested("a", 5.0))
    sim.connect("a")
    assert sim.processes["a"].released
    sim.exit("a")
    assert sim.result is not None


def test_stopped_nodes_of_a_foreground_run_end_it() -> None:
    sim = Simulation([node("a")]).start().connect_all()
    sim.handle(e.NodeStopRequested("a", 10.0))
    sim.exit("a")
    assert sim.result is not None


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
