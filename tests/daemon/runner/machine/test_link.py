"""When the runner starts, restarts and ends the link process."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any, TypeVar

from daemon.runner.dataflows import node
from daemon.runner.world import World

from dora_daemon.link import LINK_NODE
from dora_daemon.runner.machine import commands as c
from dora_daemon.runner.machine import events as e
from dora_daemon.runner.machine import link as link_life
from dora_daemon.runner.machine.link import LinkLife, LinkState
from dora_daemon.runner.machine.wiring import Edge

T = TypeVar("T")

OUT = Edge("a", "x", LINK_NODE, "far a/x")


def of(commands: Iterable[c.Command], kind: type[T]) -> list[T]:
    return [command for command in commands if isinstance(command, kind)]


def started() -> LinkLife:
    life = LinkLife(count(7).__next__)
    assert life.start(0.0) == [c.SpawnLink(7)]
    assert life.spawned(e.LinkSpawned(7, 100)) == []
    assert life.connected(e.LinkConnected(7)) == [c.AdmitLink(7)]
    return life


def died(life: LinkLife, now: float, **how: Any) -> list[c.Command]:
    return life.exited(e.LinkExited(life.incarnation, e.Exit(signal="SIGKILL"), **how), now)


def test_a_link_is_started_once_and_admitted() -> None:
    life = started()
    assert life.start(1.0) == []
    assert life.state is LinkState.RUNNING


def test_another_process_is_not_the_link() -> None:
    life = started()
    assert isinstance(life.connected(e.LinkConnected(7))[0], c.Refuse)
    assert isinstance(life.connected(e.LinkConnected(3))[0], c.Refuse)


def test_a_link_that_dies_is_started_again_ever_more_slowly() -> None:
    life = started()
    delays = []
    now = 0.0
    for _ in range(8):
        commands = died(life, now)
        armed = of(commands, c.ArmTimer)[0]
        assert (armed.node, armed.timer) == (LINK_NODE, "backoff")
        delays.append(armed.at - now)
        now = armed.at
        assert of(life.timer(e.TimerFired(LINK_NODE, "backoff"), now), c.SpawnLink)
    assert delays[0] == link_life.FIRST_DELAY
    assert delays == sorted(delays)
    assert delays[-1] == link_life.LONGEST_DELAY
    assert life.restarts == 8


def test_a_link_that_lived_well_is_soon_back() -> None:
    life = started()
    for _ in range(5):
        died(life, 0.0)
        life.timer(e.TimerFired(LINK_NODE, "backoff"), 0.0)
    commands = died(life, 100.0)
    assert of(commands, c.ArmTimer)[0].at == 100.0 + link_life.FIRST_DELAY


def test_news_of_an_earlier_process_count_for_nothing() -> None:
    life = started()
    died(life, 0.0)
    life.timer(e.TimerFired(LINK_NODE, "backoff"), 1.0)
    assert life.exited(e.LinkExited(7, e.Exit(code=1)), 2.0) == []
    assert life.state is LinkState.STARTING


def test_it_passes_on_what_waits_at_the_consumers_pace() -> None:
    life = started()
    commands = life.end(50.0, stopping=False)
    assert of(commands, c.FinishLink)[0].seconds >= 3600
    said = life.timer(e.TimerFired(LINK_NODE, "notice"), 60.0)
    assert "still passed on" in of(said, c.Say)[0].message
    assert not life.over
    assert not of(life.exited(e.LinkExited(7, e.Exit(code=0)), 60.0), c.SpawnLink)
    assert life.over


def test_a_stop_makes_it_hurry_and_a_forced_one_kills_it() -> None:
    life = started()
    life.end(50.0, stopping=False)
    commands = life.end(51.0, stopping=True)
    assert of(commands, c.FinishLink)[0].seconds == link_life.DRAIN_AT_STOP
    assert life.end(52.0, stopping=True) == []
    assert of(life.end(52.0, stopping=True, force=True), c.SignalLink) == [c.SignalLink("SIGKILL")]
    died(life, 52.1)
    assert life.over


def test_one_that_does_not_end_is_killed() -> None:
    life = started()
    armed = of(life.end(10.0, stopping=True), c.ArmTimer)[0]
    assert armed.at == 10.0 + link_life.DRAIN_AT_STOP + link_life.LEAVE
    killed = life.timer(e.TimerFired(LINK_NODE, "kill"), armed.at)
    assert of(killed, c.SignalLink) == [c.SignalLink("SIGKILL")]
    died(life, armed.at)
    assert life.over


def test_one_that_died_before_it_passed_on_what_waits_is_started_once_more() -> None:
    life = started()
    died(life, 0.0)
    commands = life.end(0.05, stopping=False)
    assert of(commands, c.SpawnLink) == [c.SpawnLink(8)]
    finish = life.spawned(e.LinkSpawned(8, 101))
    assert of(finish, c.FinishLink)
    assert of(died(life, 1.0, drained=False), c.ArmTimer)
    assert of(life.timer(e.TimerFired(LINK_NODE, "backoff"), 1.1), c.SpawnLink)


def test_it_is_not_started_for_ever_when_nothing_waits() -> None:
    life = started()
    life.end(0.0, stopping=False)
    for attempt in range(link_life.LAST_ATTEMPTS + 1):
        assert not life.over, attempt
        died(life, 0.0)
        life.timer(e.TimerFired(LINK_NODE, "backoff"), 0.0)
    assert life.over


# --- as a part of the whole state


def linked(*nodes: Any, **options: Any) -> World:
    world = World(nodes, **options)
    world.handle(e.LinksSet((OUT,)))
    number = of(world.done, c.SpawnLink)[0].incarnation
    world.handle(e.LinkSpawned(number, 99))
    world.handle(e.LinkConnected(number))
    world.start()
    world.connect_all()
    return world


def test_the_dataflow_is_finished_when_its_link_is() -> None:
    world = linked(node("a", outputs="x"))
    assert world.state.phase == "running"
    world.exit("a")
    assert of(world.done, c.FinishLink)
    assert world.result is None
    world.handle(e.LinkExited(world.state.link.incarnation, e.Exit(code=0)))
    assert world.result is not None
    assert world.result.ok
    assert world.result.stop_reason is None


def test_a_stop_ends_the_nodes_first_and_then_the_link() -> None:
    world = linked(node("a", outputs="x"))
    world.stop()
    assert not of(world.done, c.FinishLink)
    world.exit("a")
    assert of(world.done, c.FinishLink)[0].seconds == link_life.DRAIN_AT_STOP


def test_a_stop_while_the_link_still_passes_on_makes_it_hurry() -> None:
    world = linked(node("a", outputs="x"))
    world.exit("a")
    world.stop()
    assert [f.seconds for f in of(world.done, c.FinishLink)][-1] == link_life.DRAIN_AT_STOP
    world.stop(force=True)
    assert of(world.done, c.SignalLink) == [c.SignalLink("SIGKILL")]


def test_a_new_link_is_told_again_what_has_ended() -> None:
    world = linked(node("a", outputs="x"), node("b"))
    world.exit("a")
    world.handle(e.LinkExited(world.state.link.incarnation, e.Exit(signal="SIGKILL")))
    world.pass_time(link_life.FIRST_DELAY)
    number = of(world.done, c.SpawnLink)[-1].incarnation
    world.done.clear()
    world.handle(e.LinkConnected(number))
    assert world.done == [c.AdmitLink(number), c.AnnounceClosedAgain(LINK_NODE, (OUT.input,))]


def test_inputs_from_another_machine_end_and_open_again() -> None:
    world = linked(node("a", outputs="x"), node("sink", reads="far/y"))
    world.handle(e.SourceClosed("far", "y"))
    assert world.state.wiring.all_inputs_closed("sink")
    assert world.state.nodes["sink"].inputs_ended
    world.handle(e.SourceReopened("far", "y"))
    assert not world.state.wiring.all_inputs_closed("sink")


def test_a_restarted_reader_is_told_again_that_a_far_source_has_ended() -> None:
    world = linked(node("a", outputs="x"), node("sink", reads="far/y a/x"))
    world.handle(e.SourceClosed("far", "y"))
    world.handle(e.NodeRestartRequested("sink", 1.0))
    world.exit("sink")
    world.done.clear()
    world.connect("sink")
    assert c.AnnounceClosedAgain("sink", ("far_y",)) in world.done


def test_streams_may_come_and_go() -> None:
    world = linked(node("a", outputs="x z"))
    world.exit("a")
    world.handle(e.LinksSet((OUT, Edge("a", "z", LINK_NODE, "far a/z"))))
    assert world.state.wiring.closed_inputs(LINK_NODE) == (OUT.input,)
    world.handle(e.LinksSet(()))
    assert world.state.wiring.closed_inputs(LINK_NODE) == ()
    assert len(of(world.done, c.SpawnLink)) == 1
