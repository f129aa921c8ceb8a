"""Dataflows on several machines behave like those on one."""

from __future__ import annotations

import json

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
from support.runner.linked import Linked, children, linked
from support.runner.runs import gone
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.protocol import runner as protocol

pytestmark = pytest.mark.integration


def losses(flow: Linked) -> list[str]:
    """Return the reported reasons why a peer was lost."""
    return [
        f"{name}: {peer.reason}"
        for name, part in flow.parts.items()
        for notice in part.run.notices
        if isinstance(notice, protocol.RunnerState) and notice.link is not None
        for peer in notice.link.peers
        if peer.state == "lost"
    ]


def test_messages_arrive_in_order_followed_by_the_end(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = counting(out, 2000)
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        links = [part.link_pid() for part in flow.parts.values()]
        assert results(flow) == {"a": "success", "b": "success"}
        gone(*links)
    assert numbers(out) == list(range(2000))
    assert events(out)[2000:] == [
        ["INPUT_CLOSED", "number", None],
        ["STOP", "ALL_INPUTS_CLOSED", None],
    ]


def test_arrays_and_metadata_are_unchanged(programs: Workspace) -> None:
    programs.node(
        "asker",
        """
        import sys
        import pyarrow as pa
        from dora import Node
        node = Node()
        sizes = [0, 1, 1000, 65536, 1 << 20, 40 << 20]
        for number, size in enumerate(sizes):
            data = pa.array(bytes(range(256)) * (size // 256 + 1), pa.uint8())[:size]
            node.send_output("question", data, {"number": number, "name": "größe"})
            event = node.next(timeout=60)
            assert event is not None and event["type"] == "INPUT", event
            assert event["value"].equals(data), size
            assert event["metadata"]["number"] == number
            assert event["metadata"]["name"] == "größe"
        nested = pa.array([{"x": [1, None], "y": "z"}, None])
        node.send_output("question", nested)
        event = node.next(timeout=60)
        assert event["value"].equals(nested)
        print("all well", flush=True)
        """,
    )
    programs.node(
        "echo",
        """
        from dora import Node
        node = Node()
        for event in node:
            if event["type"] == "INPUT":
                node.send_output("answer", event["value"], event["metadata"])
        """,
    )
    content = flow_of(
        node("ask", "asker", inputs={"answer": reads("echo/answer")}, outputs=["question"]),
        node("echo", "echo", inputs={"question": reads("ask/question")}, outputs=["answer"]),
    )
    with linked(programs, content, {"ask": "one", "echo": "two"}) as flow:
        assert results(flow) == {"ask": "success", "echo": "success"}


def test_each_reader_has_its_own_policy(programs: Workspace) -> None:
    every, newest, local, third = (programs.path / f"{n}.txt" for n in "enlt")
    content = flow_of(
        node("a", "counter", 1000, outputs=["number"]),
        node("every", "writer", every, inputs={"number": reads("a/number", size=5)}),
        node(
            "newest",
            "writer",
            newest,
            0.02,
            inputs={"number": reads("a/number", size=1, policy="drop_oldest")},
        ),
        node("local", "writer", local, inputs={"number": reads("a/number")}),
        node("third", "writer", third, inputs={"number": reads("a/number")}),
    )
    where = {"a": "one", "every": "two", "newest": "two", "local": "one", "third": "three"}
    with linked(programs, content, where) as flow:
        assert set(results(flow).values()) == {"success"}
    assert numbers(every) == numbers(local) == numbers(third) == list(range(1000))
    got = numbers(newest)
    assert got == sorted(set(got))
    assert got[-1] == 999
    assert len(got) < 1000


def test_a_slow_reader_blocks_the_sender(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 100_000, outputs=["number"]),
        node("b", "writer", out, 0.01, inputs={"number": reads("a/number", size=2)}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        one = flow["one"]
        wait_until(lambda: len(numbers(out)) > 20, what="messages")
        edge = one.edges()["a/number -> two (link)"]
        assert edge.policy == "backpressure"
        # the queues of both ends and the window of the link
        assert edge.sent <= len(numbers(out)) + 2 + 2 + 300
        # each message that the reader receives unblocks it for a moment
        wait_until(
            lambda: one.run.wait_for_state("a", "Running").blocked_on, what="a blocked sender"
        )
        stop(flow)
    got = numbers(out)
    assert got == list(range(len(got)))


def test_lines_and_log_entries_reach_other_machines(programs: Workspace) -> None:
    out, stdout = programs.path / "logs.txt", programs.path / "stdout.txt"
    programs.node(
        "talker",
        """
        import logging, time
        from dora import Node
        node = Node()
        for event in node:
            print("a printed line", flush=True)
            logging.getLogger("mine").warning("watch out")
        """,
    )
    content = flow_of(
        node(
            "talker",
            "talker",
            inputs={"tick": "dora/timer/millis/50"},
            outputs=["stdout"],
            send_stdout_as="stdout",
        ),
        node("viewer", "writer", out, inputs={"logs": "dora/logs/warn"}),
        node("reader", "writer", stdout, inputs={"line": "talker/stdout"}),
    )
    where = {"talker": "one", "viewer": "two", "reader": "two"}
    with linked(programs, content, where) as flow:
        wait_until(
            lambda: any("a printed line" in v[0] for _, _, v in events(stdout) if v),
            what="printed lines",
        )
        entry = wait_until(
            lambda: next(
                (
                    found
                    for _, _, value in events(out)
                    if value and (found := json.loads(value[0]))["node_id"] == "talker"
                ),
                None,
            ),
            what=lambda: f"log entries: {events(out)} {flow['two'].edges()}",
        )
        assert entry is not None
        assert entry["level"] == "WARN"
        assert entry["message"] == "watch out"
        for part in flow.parts.values():
            part.run.request(protocol.StopAllNodes(grace=2.0))
        assert set(results(flow).values()) == {"success"}


def test_restart_and_failure_of_a_remote_node_are_announced(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    programs.node(
        "shaky",
        """
        import sys
        import pyarrow as pa
        from dora import Node
        node = Node()
        node.send_output("number", pa.array([node.restart_count()]))
        sys.exit(3)
        """,
    )
    content = flow_of(
        node(
            "shaky",
            "shaky",
            outputs=["number"],
            restart_policy="on-failure",
            max_restarts=2,
        ),
        node("steady", "counter", 1, outputs=["number"]),
        node(
            "b",
            "writer",
            out,
            inputs={"number": reads("shaky/number"), "other": reads("steady/number")},
        ),
    )
    with linked(programs, content, {"shaky": "one", "steady": "two", "b": "two"}) as flow:
        found = results(flow)
        assert found["b"] == "success"
        assert found["shaky"].startswith("failed")
    received = [(kind, key) for kind, key, _ in events(out) if kind != "STOP" and key != "other"]
    assert received[:6] == [
        ("INPUT", "number"),
        ("NODE_RESTARTED", "shaky"),
        ("INPUT", "number"),
        ("NODE_RESTARTED", "shaky"),
        ("INPUT", "number"),
        ("NODE_FAILED", "shaky"),
    ]
    assert numbers(out) == [0, 1, 2]


def test_an_input_from_another_machine_can_time_out(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    programs.node(
        "moody",
        """
        import os, sys, time
        import pyarrow as pa
        from dora import Node
        node = Node()
        node.send_output("number", pa.array([0]))
        while not os.path.exists(sys.argv[1]):
            time.sleep(0.01)
        node.send_output("number", pa.array([1]))
        """,
    )
    go_on = programs.path / "go-on"
    content = flow_of(
        node("moody", "moody", go_on, outputs=["number"]),
        node(
            "b",
            "writer",
            out,
            inputs={"number": reads("moody/number", input_timeout=0.5)},
        ),
        health_check_interval=0.1,
    )
    with linked(programs, content, {"moody": "one", "b": "two"}) as flow:
        flow["two"].run.wait_for_state("b", "Degraded")
        wait_until(lambda: "INPUT_CLOSED" in out.read_text(), timeout=30, what="news of it")
        go_on.touch()
        results(flow)
    kinds = [kind for kind, _, _ in events(out)]
    assert kinds[:4] == ["INPUT", "INPUT_CLOSED", "INPUT_RECOVERED", "INPUT"]


def test_a_cycle_of_full_queues_over_two_machines_is_named(programs: Workspace) -> None:
    programs.node(
        "doubler",
        """
        import pyarrow as pa
        from dora import Node
        node = Node()
        node.send_output("number", pa.array([0]))
        for event in node:
            if event["type"] == "INPUT":
                node.send_output("number", event["value"])
                node.send_output("number", event["value"])
        """,
    )
    content = flow_of(
        node("a", "doubler", inputs={"number": reads("b/number", size=3)}, outputs=["number"]),
        node("b", "doubler", inputs={"number": reads("a/number", size=3)}, outputs=["number"]),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        ended = {n.node: n for part in flow.parts.values() for n in part.result().nodes}
    stderr = "\n".join(line for result in ended.values() for line in result.stderr_tail)
    assert "cycle of backpressure: a -> b -> a" in stderr or "b -> a -> b" in stderr, ended


def test_statistics_show_both_ends_of_an_edge(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 50, outputs=["number"]),
        node("b", "writer", out, inputs={"number": reads("a/number"), "tick": "dora/timer/secs/1"}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        edge = "a/number -> b/number"
        # and the record that it has ended
        wait_until(lambda: flow["two"].edges()[edge].received == 51, what="messages")
        entering = flow["two"].edges()[edge]
        assert (len(numbers(out)), entering.dropped) == (50, 0)
        assert entering.latency_us["p50"] > 0
        assert entering.crossing is not None
        assert (entering.crossing.machine, entering.crossing.lost) == ("one", 0)
        stop(flow)


def test_a_stop_ends_nodes_before_links(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    programs.node(
        "last_words",
        """
        import pyarrow as pa
        from dora import Node
        node = Node()
        for event in node:
            if event["type"] == "STOP":
                break
        for number in range(50):
            node.send_output("number", pa.array([number]))
        """,
    )
    content = flow_of(
        node("a", "last_words", inputs={"tick": "dora/timer/secs/1"}, outputs=["number"]),
        node("b", "writer", out, inputs={"number": reads("a/number")}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        one, two = flow["one"], flow["two"]
        links = [one.link_pid(), two.link_pid()]
        for part in flow.parts.values():
            part.run.request(protocol.Handshake())
        one.run.request(protocol.StopAllNodes(grace=5.0))
        assert one.result().ok
        assert two.result().ok
        gone(*links)
        assert not losses(flow)
    assert numbers(out) == list(range(50))


def test_a_dataflow_on_one_machine_has_no_link(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = counting(out, 5)
    with linked(programs, content, {"a": "one", "b": "one"}, release=False) as flow:
        part = flow["one"]
        part.run.wait_for_phase("ready")
        assert part.run.status().state.link is None
        assert children(part.run.pid(), "dora_daemon.link") == []
        refused = part.run.request(protocol.SetLinkPeers())
        assert isinstance(refused, protocol.Refusal)
        flow.release()
        results(flow)


def test_a_failure_to_listen_is_reported(programs: Workspace) -> None:
    content = counting(programs.path / "out.txt", 5)
    unusable = {"listen_host": "192.0.2.1"}
    with linked(programs, content, {"a": "one", "b": "two"}, release=False, link=unusable) as flow:
        part = flow["one"]
        wait_until(
            lambda: part.report().problem,
            what=lambda: f"a problem: {part.report()} {part.run.log()}",
        )
        assert "192.0.2.1" in (part.report().problem or "")
        assert part.report().endpoints == ()
        for each in flow.parts.values():
            each.run.request(protocol.StopAllNodes(force=True))
        results(flow)
