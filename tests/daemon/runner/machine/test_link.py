"""State machine of the link process, alone and as a part of the whole state."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any, TypeVar

from support.runner.nodes import node
from support.runner.simulation import Simulation

from dora_daemon.link import LINK_NODE
from dora_daemon.runner.machine import commands as c, events as e, link
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.link import LinkLifecycle, LinkProcessState

T = TypeVar("T")

OUT = Edge("a", "x", LINK_NODE, "far a/x")


def of(commands: Iterable[c.Command], kind: type[T]) -> list[T]:
    return [command for command in commands if isinstance(command, kind)]


def started() -> LinkLifecycle:
    life = LinkLifecycle(count(7))
    assert life.start(0.0) == [c.SpawnLink(7)]
    assert life.handle(e.LinkSpawned(7), 0.0) == []
    assert life.handle(e.LinkConnected(7), 0.0) == [c.AdmitLink(7)]
    return life


def died(life: LinkLifecycle, now: float, *, drained: bool = True) -> list[c.Command]:
    exited = e.LinkExited(life.incarnation, e.Exit(signal="SIGKILL"), drained)
    return life.handle(exited, now)


def could_not_start(life: LinkLifecycle, now: float, *, drained: bool) -> list[c.Command]:
    exited = e.LinkExited(life.incarnation, e.Exit(), drained, error="too many open files")
    return life.handle(exited, now)


def fire(life: LinkLifecycle, timer: e.TimerName, now: float) -> list[c.Command]:
    return life.handle(e.TimerFired(LINK_NODE, timer), now)


def end(life: LinkLifecycle, now: float, *, stopping: bool, force: bool = False) -> list[c.Command]:
    return life.finish(now, stopping=stopping, force=force)


def test_a_link_is_started_once_and_admitted() -> None:
    life = started()
    assert life.start(1.0) == []
    assert life.state is LinkProcessState.RUNNING


def test_any_other_process_is_refused() -> None:
    life = started()
    for number in (7, 3):
        assert isinstance(life.handle(e.LinkConnected(number), 0.0)[0], c.Refuse)


def test_a_dying_link_is_restarted_with_growing_delays() -> None:
    life = started()
    delays = []
    now = 0.0
    for _ in range(8):
        armed = of(died(life, now), c.ArmTimer)[0]
        assert (armed.node, armed.timer) == (LINK_NODE, "backoff")
        delays.append(armed.at - now)
        now = armed.at
        assert of(fire(life, "backoff", now), c.SpawnLink)
    assert delays[0] == link.RESTARTS.first
    assert delays == sorted(delays)
    assert delays[-1] == link.RESTARTS.longest
    assert life.restarts == 8


def test_a_stable_link_is_restarted_with_the_first_delay() -> None:
    life = started()
    for _ in range(5):
        died(life, 0.0)
        fire(life, "backoff", 0.0)
    assert of(died(life, 100.0), c.ArmTimer)[0].at == 100.0 + link.RESTARTS.first


def test_events_of_a_former_process_are_ignored() -> None:
    life = started()
    died(life, 0.0)
    fire(life, "backoff", 1.0)
    assert life.handle(e.LinkExited(7, e.Exit(code=1), drained=True), 2.0) == []
    assert life.state is LinkProcessState.STARTING


def test_after_the_end_queued_messages_are_delivered_at_the_consumers_pace() -> None:
    life = started()
    assert of(end(life, 50.0, stopping=False), c.FinishLink)[0].seconds >= 3600
    log = of(fire(life, "notice", 60.0), c.EmitLog)[0].message
    assert "still delivering messages" in log
    assert not life.over
    assert not of(life.handle(e.LinkExited(7, e.Exit(code=0), drained=True), 60.0), c.SpawnLink)
    assert life.over


def test_a_stop_shortens_the_delivery_and_a_forced_one_kills() -> None:
    life = started()
    end(life, 50.0, stopping=False)
    commands = end(life, 51.0, stopping=True)
    assert of(commands, c.FinishLink)[0].seconds == link.STOP_DRAIN_SECONDS
    assert end(life, 52.0, stopping=True) == []
    forced = end(life, 52.0, stopping=True, force=True)
    assert of(forced, c.SignalLink) == [c.SignalLink("SIGKILL")]
    died(life, 52.1)
    assert life.over


def test_a_link_that_does_not_end_is_killed() -> None:
    life = started()
    armed = of(end(life, 10.0, stopping=True), c.ArmTimer)[0]
    assert armed.at == 10.0 + link.STOP_DRAIN_SECONDS + link.LEAVE_SECONDS
    killed = fire(life, "kill", armed.at)
    assert of(killed, c.SignalLink) == [c.SignalLink("SIGKILL")]
    assert not of(died(life, armed.at, drained=False), c.EmitLog), "logged before"
    assert life.over


def test_a_forced_stop_after_the_deadline_kills_at_once() -> None:
    life = started()
    end(life, 10.0, stopping=True)
    forced = end(life, 10.5 + link.STOP_DRAIN_SECONDS, stopping=True, force=True)
    assert of(forced, c.SignalLink) == [c.SignalLink("SIGKILL")]


def test_a_link_that_cannot_be_started_keeps_its_queued_messages() -> None:
    life = started()
    died(life, 0.0, drained=False)
    end(life, 0.05, stopping=False)
    now = 0.05
    for _ in range(3 * link.REPORTS.limit):
        now = of(could_not_start(life, now, drained=False), c.ArmTimer)[0].at
        assert of(fire(life, "backoff", now), c.SpawnLink)
    log = of(could_not_start(life, now + link.END_DRAIN_SECONDS, drained=False), c.EmitLog)[0]
    assert "too many open files; messages to other machines were not delivered" in log.message
    assert life.over


def test_a_link_that_died_with_messages_queued_is_restarted_to_deliver_them() -> None:
    life = started()
    died(life, 0.0)
    assert of(end(life, 0.05, stopping=False), c.SpawnLink) == [c.SpawnLink(8)]
    assert of(life.handle(e.LinkSpawned(8), 0.05), c.FinishLink)
    assert of(died(life, 1.0, drained=False), c.ArmTimer)
    assert of(fire(life, "backoff", 1.1), c.SpawnLink)


def test_a_link_without_messages_to_deliver_is_restarted_a_limited_number_of_times() -> None:
    life = started()
    end(life, 0.0, stopping=False)
    for attempt in range(link.REPORTS.limit + 1):
        assert not life.over, attempt
        done = died(life, 0.0)
        fire(life, "backoff", 0.0)
    assert life.over
    assert "gave up the link" in of(done, c.EmitLog)[0].message


# --- as a part of the whole state


def linked(*nodes: Any, **settings: Any) -> Simulation:
    sim = Simulation(nodes, **settings)
    sim.handle(e.OutgoingStreamsSet((OUT,)))
    number = link_number(sim)
    sim.handle(e.LinkSpawned(number))
    sim.handle(e.LinkConnected(number))
    sim.start()
    sim.connect_all()
    return sim


def link_number(sim: Simulation) -> int:
    return sim.of(c.SpawnLink)[-1].incarnation


def test_the_dataflow_finishes_with_its_link() -> None:
    sim = linked(node("a", outputs="x"))
    assert sim.state.phase == "running"
    sim.exit("a")
    assert sim.of(c.FinishLink)
    assert sim.result is None
    sim.handle(e.LinkExited(link_number(sim), e.Exit(code=0), drained=True))
    assert sim.result is not None
    assert sim.result.ok
    assert sim.result.stop_reason is None


def test_a_stop_ends_the_nodes_first_and_then_the_link() -> None:
    sim = linked(node("a", outputs="x"))
    sim.stop()
    assert not sim.of(c.FinishLink)
    sim.exit("a")
    assert sim.of(c.FinishLink)[0].seconds == link.STOP_DRAIN_SECONDS


def test_a_stop_after_the_nodes_ended_shortens_the_delivery() -> None:
    sim = linked(node("a", outputs="x"))
    sim.exit("a")
    sim.stop()
    assert sim.of(c.FinishLink)[-1].seconds == link.STOP_DRAIN_SECONDS
    sim.stop(force=True)
    assert sim.of(c.SignalLink) == [c.SignalLink("SIGKILL")]


def test_a_stop_is_not_followed_by_advice_to_stop() -> None:
    sim = linked(node("a", outputs="x"))
    sim.exit("a")
    sim.pass_time(link.NOTICE_SECONDS - 1.0)
    sim.stop()
    sim.pass_time(2.0)
    assert not [log for log in sim.of(c.EmitLog) if "still delivering" in log.message]


def test_a_stop_for_recovery_kills_the_link_at_once() -> None:
    sim = linked(node("a", outputs="x"))
    sim.stop(recovering=True)
    assert sim.of(c.SignalLink) == [c.SignalLink("SIGKILL")]
    sim.exit("a")
    assert sim.result is not None


def test_ended_outputs_are_announced_again_to_a_new_link() -> None:
    sim = linked(node("a", outputs="x"), node("b"))
    sim.exit("a")
    sim.handle(e.LinkExited(link_number(sim), e.Exit(signal="SIGKILL"), drained=True))
    sim.pass_time(link.RESTARTS.first)
    number = link_number(sim)
    sim.done.clear()
    sim.handle(e.LinkConnected(number))
    assert sim.done == [c.AdmitLink(number), c.RepeatClosed(LINK_NODE, (OUT.input,))]


def test_inputs_from_another_machine_end_and_open_again() -> None:
    sim = linked(node("a", outputs="x"), node("sink", reads="far/y"))
    sim.handle(e.SourceClosed("far", "y"))
    assert sim.state.closed_inputs("sink") == ("far_y",)
    assert ("sink", "finish") in sim.timers
    sim.handle(e.SourceReopened("far", "y"))
    assert sim.state.closed_inputs("sink") == ()


def test_an_ended_remote_source_is_announced_again_to_a_restarted_reader() -> None:
    sim = linked(node("a", outputs="x"), node("sink", reads="far/y a/x"))
    sim.handle(e.SourceClosed("far", "y"))
    sim.handle(e.NodeRestartRequested("sink", 1.0))
    sim.exit("sink")
    sim.done.clear()
    sim.connect("sink")
    assert c.RepeatClosed("sink", ("far_y",)) in sim.done


def test_outgoing_streams_can_change() -> None:
    sim = linked(node("a", outputs="x z"))
    sim.exit("a")
    sim.handle(e.OutgoingStreamsSet((OUT, Edge("a", "z", LINK_NODE, "far a/z"))))
    assert sim.state.closed_inputs(LINK_NODE) == (OUT.input,)
    sim.handle(e.OutgoingStreamsSet(()))
    assert sim.state.closed_inputs(LINK_NODE) == ()
    assert len(sim.of(c.SpawnLink)) == 1
