"""Killed while messages cross: nothing is lost, nothing comes twice, all is in order.

Under backpressure, that is; of drop_oldest streams, all that is missing is counted.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from daemon.runner.test_links import (
    COUNTER,
    WRITER,
    events,
    flow_of,
    node,
    numbers,
    reads,
    results,
)
from support.runner.linked import Linked, Part, linked
from support.runner.runs import gone
from support.waiting import PATIENCE, wait_until
from support.workspace import Workspace

from dora_config.protocol import runner as protocol
from dora_daemon.link.streams.sender import LEAST_WINDOW

pytestmark = pytest.mark.integration

ALL = 6000
"""Messages of a run in which something is killed."""


@pytest.fixture
def programs(workspace: Workspace) -> Workspace:
    workspace.node("counter", COUNTER)
    workspace.node("writer", WRITER)
    return workspace


def kill_link(part: Part) -> None:
    pid = part.link_pid()
    os.kill(pid, signal.SIGKILL)
    gone(pid)


def wait_for(path: Path, count: int, flow: Linked, *, timeout: float = PATIENCE) -> None:
    def state() -> str:
        came = numbers(path)
        missing = sorted(set(range(max(came, default=0) + 1)).difference(came))
        logs = "".join(f"\n{p.machine}:\n{p.run.log()}" for p in flow.parts.values())
        last = events(path)[-2:]
        return f"{count} messages, {len(came)} came, missing {missing[:20]}, last {last}:{logs}"

    wait_until(lambda: len(numbers(path)) >= count, timeout=timeout, what=state)


@pytest.mark.parametrize("victims", [("one",), ("two",), ("one", "two")], ids="-".join)
def test_links_are_killed_again_and_again(programs: Workspace, victims: tuple[str, ...]) -> None:
    out, local = programs.path / "out.txt", programs.path / "local.txt"
    content = flow_of(
        node("a", "counter", ALL, 0.0005, outputs=["number"]),
        node("b", "writer", out, inputs={"number": reads("a/number")}),
        node("near", "writer", local, inputs={"number": reads("a/number", size=2)}),
    )
    with linked(programs, content, {"a": "one", "near": "one", "b": "two"}) as flow:
        for step in range(1, 5):
            wait_for(out, step * ALL // 8, flow)
            for machine in victims:
                kill_link(flow[machine])
        wait_for(out, ALL, flow)
        assert set(results(flow).values()) == {"success"}
    assert numbers(out) == list(range(ALL))
    assert numbers(local) == list(range(ALL))
    assert not [e for e in events(out) if e[0] == "NODE_RESTARTED"]


def test_a_link_has_the_same_port_again(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 100_000, 0.001, outputs=["number"]),
        node("b", "writer", out, inputs={"number": reads("a/number")}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        one = flow["one"]
        before = one.report().endpoints
        kill_link(one)
        flow.wait_until_proven()
        assert one.report().endpoints == before
        wait_for(out, len(numbers(out)) + 100, flow)
        for part in flow.parts.values():
            part.run.ask(protocol.StopAllNodes(grace=2.0))
        results(flow)
    got = numbers(out)
    assert got == list(range(len(got)))


def test_what_drop_oldest_loses_is_counted(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", ALL, 0.0005, outputs=["number"]),
        node(
            "b",
            "writer",
            out,
            inputs={
                "number": reads("a/number", policy="drop_oldest"),
                "tick": "dora/timer/secs/1",
            },
        ),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        wait_for(out, 500, flow)
        kill_link(flow["one"])
        wait_for(out, 1500, flow)
        kill_link(flow["two"])
        wait_until(lambda: numbers(out)[-1] == ALL - 1, timeout=40.0, what="the last one")
        got = numbers(out)
        assert got == sorted(set(got))
        leaving = flow["one"].edges()["a/number -> two (link)"]
        entering = flow["two"].edges()["a/number -> b/number"]
        assert leaving.crossing is not None
        assert entering.crossing is not None
        counted = leaving.dropped + entering.dropped + entering.crossing.lost
        assert ALL - len(got) <= counted
        for part in flow.parts.values():
            part.run.ask(protocol.StopAllNodes(grace=2.0))
        results(flow)


def test_a_source_that_is_killed_and_restarted(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    programs.node(
        "resumer",
        """
        import pathlib, sys, time
        import pyarrow as pa
        from dora import Node
        mark = pathlib.Path(sys.argv[1])
        first = int(mark.read_text()) if mark.exists() else 0
        node = Node()
        for number in range(first, 3000):
            # Sent before it is noted: one may come twice when the node is killed between the two.
            node.send_output("number", pa.array([number]))
            new = mark.with_suffix(".new")
            new.write_text(str(number + 1))
            new.replace(mark)
        """,
    )
    content = flow_of(
        node(
            "a",
            "resumer",
            programs.path / "mark",
            outputs=["number"],
            restart_policy="on-failure",
        ),
        node("b", "writer", out, inputs={"number": reads("a/number")}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        wait_for(out, 500, flow)
        os.kill(flow["one"].node_pid("a"), signal.SIGKILL)
        assert results(flow) == {"a": "success", "b": "success"}
    got = numbers(out)
    assert sorted(set(got)) == list(range(3000))
    assert got == sorted(got)
    assert len(got) <= 3001
    assert ["NODE_RESTARTED", "a", None] in events(out)


def test_a_reader_that_is_killed_and_restarted(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 3000, 0.0005, outputs=["number"]),
        node(
            "b",
            "writer",
            out,
            inputs={"number": reads("a/number")},
            restart_policy="on-failure",
        ),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        wait_for(out, 500, flow)
        os.kill(flow["two"].node_pid("b"), signal.SIGKILL)
        assert results(flow) == {"a": "success", "b": "success"}
    got = numbers(out)
    # What the reader had taken died with it, as on one machine.
    assert got == sorted(set(got))
    assert got[-1] == 2999
    assert len(got) >= 3000 - 2


def test_a_machine_that_is_lost_and_comes_back(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 100_000, 0.001, outputs=["number"]),
        node("b", "writer", out, inputs={"number": reads("a/number", size=5)}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        wait_for(out, 200, flow)
        flow.kill_runner("two")
        one = flow["one"]
        wait_until(
            lambda: one.report().peers[0].state == "lost",
            what=lambda: f"the loss: {one.report()}",
        )
        flow.start("two")
        flow.connect()
        flow["two"].run.wait_for_phase("ready")
        assert flow["two"].run.ask(protocol.Release()) == protocol.Done()
        wait_for(out, len(numbers(out)) + 200, flow)
        for part in flow.parts.values():
            part.run.ask(protocol.StopAllNodes(grace=2.0))
        results(flow)
    got = numbers(out)
    # What lay in the queue of the machine that was lost is lost; what it could not acknowledge any
    # more comes again to its successor. All else is in order.
    again = [at for at in range(1, len(got)) if got[at] <= got[at - 1]]
    assert len(again) <= 1
    assert len(got) - len(set(got)) <= LEAST_WINDOW
    assert got[-1] - len(set(got)) < 20


def test_the_sources_machine_is_lost_and_comes_back(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 100_000, 0.001, outputs=["number"]),
        node("b", "writer", out, inputs={"number": reads("a/number", size=5)}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        wait_for(out, 200, flow)
        flow.kill_runner("one")
        flow.start("one")
        flow.connect()
        flow.wait_until_proven()
        flow["one"].run.wait_for_phase("ready")
        assert flow["one"].run.ask(protocol.Release()) == protocol.Done()
        wait_until(
            lambda: ["NODE_RESTARTED", "a", None] in events(out), what=lambda: f"{events(out)[-5:]}"
        )
        wait_for(out, len(numbers(out)) + 200, flow)
        for part in flow.parts.values():
            part.run.ask(protocol.StopAllNodes(grace=2.0))
        results(flow)
    got = numbers(out)
    again = got.index(0, 1)
    assert got == [*range(again), *range(len(got) - again)]


def test_a_machine_that_has_ended_for_good_frees_who_waits_for_it(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 5000, outputs=["number"]),
        node("b", "writer", out, 0.01, inputs={"number": reads("a/number", size=5)}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        wait_for(out, 20, flow)
        flow.kill_runner("two")
        one = flow["one"]
        one.run.wait_for_state("a", "Running")
        reply = one.run.ask(protocol.SetLinkPeers(ended=("two",)))
        assert reply == protocol.Done()
        assert one.result().ok


@pytest.mark.parametrize("link_dies", [False, True], ids=["link lives", "link dies"])
def test_what_came_from_a_machine_that_has_ended_for_good_is_closed(
    programs: Workspace, link_dies: bool
) -> None:
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 100_000, 0.001, outputs=["number"]),
        node("b", "writer", out, inputs={"number": reads("a/number", size=5)}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        wait_for(out, 20, flow)
        flow.kill_runner("one")
        two = flow["two"]
        if link_dies:
            os.kill(two.link_pid(), signal.SIGKILL)
        reply = two.run.ask(protocol.SetLinkPeers(ended=("one",)))
        assert reply == protocol.Done()
        assert two.result().ok
    assert events(out)[-2:] == [
        ["INPUT_CLOSED", "number", None],
        ["STOP", "ALL_INPUTS_CLOSED", None],
    ]


def test_a_reader_that_ends_early_frees_the_far_sender(programs: Workspace) -> None:
    programs.node(
        "quitter",
        """
        from dora import Node
        node = Node()
        for _ in range(10):
            node.next(timeout=60)
        """,
    )
    content = flow_of(
        node("a", "counter", 5000, outputs=["number"]),
        node("b", "quitter", inputs={"number": reads("a/number", size=5)}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        assert results(flow) == {"a": "success", "b": "success"}


def test_a_new_daemon_learns_how_the_link_is(programs: Workspace) -> None:
    """Adoption: whoever connects next to the runner's socket hears it from the status."""
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 100_000, 0.001, outputs=["number"]),
        node("b", "writer", out, inputs={"number": reads("a/number")}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        run = flow["one"].run
        before = run.status().link
        run.drop_connection()
        after = run.status().link
        assert before is not None
        assert after is not None
        assert (after.endpoints, after.run_id) == (before.endpoints, before.run_id)
        assert [peer.state for peer in after.peers] == ["proven"]
        assert run.ask(protocol.FollowEvents(logs=False)) == protocol.Done()
        kill_link(flow["one"])

        def told() -> list[str]:
            run.status()
            changes = [n.report for n in run.notices if isinstance(n, protocol.LinkChanged)]
            return [report.peers[0].state for report in changes]

        wait_until(lambda: "lost" in told(), what="the loss")
        wait_until(lambda: told()[-1] == "proven", what="the proof")
        for part in flow.parts.values():
            part.run.ask(protocol.StopAllNodes(grace=2.0))
        results(flow)
