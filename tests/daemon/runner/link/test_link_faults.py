"""Kills while messages are in transit: none is lost, repeated or out of order.

Under backpressure, that is; of drop_oldest streams, all that is missing is counted.
"""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
from daemon.runner.link.conftest import (
    counting,
    events,
    flow_of,
    node,
    numbers,
    reads,
    results,
    stop,
)
from support.runner.linked import Linked, Part, linked
from support.runner.runs import gone
from support.waiting import PATIENCE, wait_until
from support.workspace import Workspace

from dora_config.protocol import runner as protocol
from dora_daemon.link.streams.sender import MIN_WINDOW

pytestmark = pytest.mark.integration

ALL = 6000
"""Messages of a run with kills."""
LAST = f'"number", [{ALL - 1}]]\n'.encode()
"""End of the line of the last one."""


def kill_link(part: Part) -> None:
    pid = part.link_pid()
    os.kill(pid, signal.SIGKILL)
    gone(pid)


def received(path: Path) -> int:
    """Return how many messages a writer has received, without parsing them."""
    return path.read_bytes().count(b'["INPUT", ') if path.exists() else 0


def wait_for(path: Path, count: int, flow: Linked, *, timeout: float = PATIENCE) -> None:
    def state() -> str:
        came = numbers(path)
        missing = sorted(set(range(max(came, default=0) + 1)).difference(came))
        logs = "".join(f"\n{p.machine}:\n{p.run.log()}" for p in flow.parts.values())
        last = events(path)[-2:]
        return f"{count} messages, {len(came)} came, missing {missing[:20]}, last {last}:{logs}"

    wait_until(lambda: received(path) >= count, timeout=timeout, what=state)


def test_repeatedly_killed_links(programs: Workspace) -> None:
    victims = [("one",), ("two",), ("one", "two")] * 2
    out, local = programs.path / "out.txt", programs.path / "local.txt"
    content = flow_of(
        node("a", "counter", ALL, 0.0005, outputs=["number"]),
        node("b", "writer", out, inputs={"number": reads("a/number")}),
        node("near", "writer", local, inputs={"number": reads("a/number", size=2)}),
    )
    with linked(programs, content, {"a": "one", "near": "one", "b": "two"}) as flow:
        for step, machines in enumerate(victims, 1):
            wait_for(out, step * ALL // 8, flow)
            for machine in machines:
                kill_link(flow[machine])
        wait_for(out, ALL, flow)
        assert set(results(flow).values()) == {"success"}
    assert numbers(out) == list(range(ALL))
    assert numbers(local) == list(range(ALL))
    assert not [e for e in events(out) if e[0] == "NODE_RESTARTED"]


def is_forked(pid: int) -> bool:
    """Return whether a process has not executed a program since its fork (PF_FORKNOEXEC)."""
    flags = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6]
    return bool(int(flags) & 0x40)


def test_a_link_is_forked_and_has_the_same_port_again(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = counting(out, 100_000, 0.001)
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        one = flow["one"]
        before = one.report().endpoints
        assert is_forked(one.link_pid())
        kill_link(one)
        flow.wait_until_connected()
        assert one.report().endpoints == before
        wait_for(out, received(out) + 100, flow)
        stop(flow)
    got = numbers(out)
    assert got == list(range(len(got)))


def test_a_runner_without_free_descriptors_starts_its_link_later(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = counting(out, 100_000, 0.001)
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        wait_for(out, 100, flow)
        one = flow["one"]
        pid = one.run.pid()
        former = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, former[1]))
        kill_link(one)
        text = "it could not be started: [Errno 24] Too many open files"
        wait_until(lambda: text in one.run.log(), what=one.run.log)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, former)
        flow.wait_until_connected()
        wait_for(out, received(out) + 100, flow)
        stop(flow)
    got = numbers(out)
    assert got == list(range(len(got)))


def test_messages_dropped_by_drop_oldest_are_counted(programs: Workspace) -> None:
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
        wait_until(lambda: LAST in out.read_bytes(), timeout=40.0, what="the last one")
        got = numbers(out)
        assert got == sorted(set(got))
        leaving = flow["one"].edges()["a/number -> two (link)"]
        entering = flow["two"].edges()["a/number -> b/number"]
        assert leaving.crossing is not None
        assert entering.crossing is not None
        counted = leaving.dropped + entering.dropped + entering.crossing.lost
        # the killed link of `two` may have numbered a message that it had not written yet
        assert ALL - len(got) <= counted + 1
        stop(flow)


def test_a_killed_and_restarted_source(programs: Workspace) -> None:
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
            # sent before it is recorded: one may come twice if the node is killed in between
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


def test_a_killed_and_restarted_reader(programs: Workspace) -> None:
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
    # messages that the killed reader had received are lost, as on one machine
    assert got == sorted(set(got))
    assert got[-1] == 2999
    assert len(got) >= 3000 - 2


def test_a_lost_machine_that_comes_back(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = counting(out, 100_000, 0.001, size=5)
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
        assert flow["two"].run.request(protocol.Release()) == protocol.Done()
        wait_for(out, received(out) + 200, flow)
        stop(flow)
    got = numbers(out)
    # messages queued on the lost machine are lost; unacknowledged ones are sent again to the new
    # part; all others arrive in order
    again = [at for at in range(1, len(got)) if got[at] <= got[at - 1]]
    assert len(again) <= 1
    assert len(got) - len(set(got)) <= MIN_WINDOW
    assert got[-1] - len(set(got)) < 20


def test_the_lost_machine_of_a_source_that_comes_back(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = counting(out, 100_000, 0.001, size=5)
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        wait_for(out, 200, flow)
        flow.kill_runner("one")
        flow.start("one")
        flow.connect()
        flow.wait_until_connected()
        flow["one"].run.wait_for_phase("ready")
        assert flow["one"].run.request(protocol.Release()) == protocol.Done()
        wait_until(
            lambda: ["NODE_RESTARTED", "a", None] in events(out), what=lambda: f"{events(out)[-5:]}"
        )
        wait_for(out, received(out) + 200, flow)
        stop(flow)
    got = numbers(out)
    again = got.index(0, 1)
    assert got == [*range(again), *range(len(got) - again)]


def test_an_ended_machine_unblocks_its_senders(programs: Workspace) -> None:
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
        reply = one.run.request(protocol.SetLinkPeers(ended=("two",)))
        assert reply == protocol.Done()
        assert one.result().ok


@pytest.mark.parametrize("link_dies", [False, True], ids=["link lives", "link dies"])
def test_inputs_from_an_ended_machine_are_closed(programs: Workspace, link_dies: bool) -> None:
    out = programs.path / "out.txt"
    content = counting(out, 100_000, 0.001, size=5)
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        wait_for(out, 20, flow)
        flow.kill_runner("one")
        two = flow["two"]
        if link_dies:
            os.kill(two.link_pid(), signal.SIGKILL)
        reply = two.run.request(protocol.SetLinkPeers(ended=("one",)))
        assert reply == protocol.Done()
        assert two.result().ok
    assert events(out)[-2:] == [
        ["INPUT_CLOSED", "number", None],
        ["STOP", "ALL_INPUTS_CLOSED", None],
    ]


def test_a_reader_that_ends_early_unblocks_the_remote_sender(programs: Workspace) -> None:
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


def test_a_new_daemon_reads_the_state_of_the_link(programs: Workspace) -> None:
    """A daemon that adopts the runner reads the state of the link from its status."""
    out = programs.path / "out.txt"
    content = counting(out, 100_000, 0.001)
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        run = flow["one"].run
        before = run.status().state.link
        run.drop_connection()
        after = run.status().state.link
        assert before is not None
        assert after is not None
        assert (after.endpoints, after.run_id) == (before.endpoints, before.run_id)
        assert [peer.state for peer in after.peers] == ["connected"]
        run.request(protocol.Handshake())
        kill_link(flow["one"])

        def states() -> list[str]:
            run.status()
            links = [n.link for n in run.notices if isinstance(n, protocol.RunnerState)]
            return [link.peers[0].state for link in links if link is not None]

        wait_until(lambda: "lost" in states(), what="the loss")
        wait_until(lambda: states()[-1] == "connected", what="the connection")
        stop(flow)
