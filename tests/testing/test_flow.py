"""Dataflows in virtual time: the order of events, times, queues, and what nodes use of a run."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from support.workspace import Workspace

from dora_testing import Flow, FlowError, from_function, from_messages

ECHO = """
    from dora import Node
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("out", event["value"], event["metadata"])
"""
PRINTS = """
    import time
    from dora import Node
    begin = time.monotonic()
    for event in Node():
        value = event["value"].to_pylist() if event["type"] == "INPUT" else event.get("id")
        print(f"{time.monotonic() - begin:.3f}", event["type"], event.get("id"), value, flush=True)
"""


def flow_of(workspace: Workspace, nodes: list[dict[str, Any]], **settings: Any) -> Flow:
    return Flow(workspace.dataflow({"nodes": nodes}), **settings)


def sink(source: str = "a/out", **options: Any) -> dict[str, Any]:
    """Return a node `b`, `b.py`, with the input `in`."""
    return {"id": "b", "path": "b.py", "inputs": {"in": {"source": source, **options}}}


SOURCE: dict[str, Any] = {"id": "a", "path": "a.py", "outputs": ["out"]}


def numbers(*values: int, every: float = 1.0, **settings: Any) -> Any:
    """Return a source that sends a number each second."""
    return from_messages(
        [(n * every, pa.array([value])) for n, value in enumerate(values)], **settings
    )


def test_messages_reach_the_node_at_their_times(workspace: Workspace) -> None:
    workspace.node("b", ECHO)
    node = {**sink(), "outputs": ["out"]}
    out = flow_of(workspace, [SOURCE, node], replace={"a": numbers(1, 2, 3)}).run()
    assert out["b/out"].values == [[1], [2], [3]]
    assert out["b/out"].times == [0.0, 1.0, 2.0]
    assert out["b/out"].last.metadata["timestamp"].isoformat() == "2026-01-01T00:00:02+00:00"
    assert out.stop_reason == "nothing more can happen"


def test_source_that_ends_closes_the_inputs(workspace: Workspace) -> None:
    workspace.node("b", PRINTS)
    out = flow_of(workspace, [SOURCE, sink()], replace={"a": numbers(7, ends=True)}).run()
    assert out.lines("b") == [
        "0.000 INPUT in [7]",
        "0.000 INPUT_CLOSED in in",
        "0.000 STOP ALL_INPUTS_CLOSED ALL_INPUTS_CLOSED",
    ]
    assert out.stop_reason is None


def test_clocks_and_sleeps_follow_the_virtual_time(workspace: Workspace) -> None:
    workspace.node(
        "b",
        """
        from time import sleep, time, monotonic, perf_counter  # before dora is imported
        from dora import Node
        node = Node()
        begin = time(), monotonic(), perf_counter()
        sleep(3600)
        end = time(), monotonic(), perf_counter()
        print(*(round(after - before, 6) for after, before in zip(end, begin)))
        timeout = node.next(timeout=60)
        print(timeout["type"], node.timestamp().isoformat())
        for event in node:
            print(event["type"], event["metadata"]["timestamp"].isoformat())
            break
        """,
    )
    node = {"id": "b", "path": "b.py", "inputs": {"tick": "dora/timer/secs/1"}}
    messages = from_messages([(4000.0, [1])])
    nodes = [SOURCE, {**node, "inputs": {"in": "a/out"}}]
    out = flow_of(workspace, nodes, replace={"a": messages}).run()
    assert out.lines("b") == [
        "3600.0 3600.0 3600.0",
        "ERROR 2026-01-01T01:01:00+00:00",
        "INPUT 2026-01-01T01:06:40+00:00",
    ]


def test_timers_tick_in_virtual_time(workspace: Workspace) -> None:
    workspace.node("b", PRINTS)
    node = {"id": "b", "path": "b.py", "inputs": {"tick": "dora/timer/millis/400"}}
    out = flow_of(workspace, [node]).run("1s")
    assert out.lines("b") == [
        "0.000 INPUT tick []",
        "0.400 INPUT tick []",
        "0.800 INPUT tick []",
        "1.000 STOP MANUAL MANUAL",
    ]


def test_full_queue_drops_the_same_messages_in_each_run(workspace: Workspace) -> None:
    workspace.node("b", ECHO)
    node = {**sink(queue_size=2), "outputs": ["out"]}
    source = numbers(*range(10), every=0.01)
    flow = flow_of(workspace, [SOURCE, node], replace={"a": source}, cost={"b": "35ms"})
    out = flow.run()
    # taken at 0, 35, 70 and 105 ms; then what waits
    assert out["b/out"].values == [[0], [2], [6], [8], [9]]
    assert out["b/out"].times == pytest.approx([0.035, 0.07, 0.105, 0.14, 0.175])
    assert out.dropped("b/in") == 5
    assert flow.run().fingerprint() == out.fingerprint()


def test_backpressure_makes_the_sender_wait(workspace: Workspace) -> None:
    workspace.node(
        "a",
        """
        import time
        from dora import Node
        node = Node()
        for number in range(5):
            node.send_output("out", bytes([number]))
            print(f"{time.time() % 60:.2f}", flush=True)
        """,
    )
    workspace.node("b", ECHO)
    node = {**sink(queue_size=2, queue_policy="backpressure"), "outputs": ["out"]}
    out = flow_of(workspace, [SOURCE, node], cost={"b": 1.0}).run()
    assert out["b/out"].values == [[0], [1], [2], [3], [4]]
    assert out.dropped("b/in") == 0
    assert out.lines("a")[:2] == ["0.00", "0.00"]
    assert float(out.lines("a")[-1]) >= 1.0


def test_latency_of_an_edge(workspace: Workspace) -> None:
    workspace.node("b", PRINTS)
    flow = flow_of(
        workspace,
        [SOURCE, sink()],
        replace={"a": numbers(1, 2, ends=True)},
        latency={"a/out": "5ms"},
    )
    assert flow.run().lines("b")[:2] == ["0.005 INPUT in [1]", "1.005 INPUT in [2]"]


def test_input_timeout(workspace: Workspace) -> None:
    workspace.node("b", PRINTS)
    source = from_messages([(0.0, [1]), (5.0, [2])])
    flow = flow_of(workspace, [SOURCE, sink(input_timeout=2)], replace={"a": source})
    assert flow.run("6s").lines("b") == [
        "0.000 INPUT in [1]",
        "2.000 INPUT_CLOSED in in",
        "5.000 INPUT_RECOVERED in in",
        "5.000 INPUT in [2]",
        "6.000 STOP MANUAL MANUAL",
    ]


def test_node_restarts_by_its_policy_with_its_state(workspace: Workspace) -> None:
    workspace.node(
        "b",
        """
        import sys
        from dora import Node
        node = Node()
        print(node.restart_count(), node.load_state(), flush=True)
        for event in node:
            if event["type"] == "INPUT":
                node.send_output("out", event["value"])
                node.save_state(b"seen")
                if event["value"][0].as_py() == 2:
                    sys.exit(1)
        """,
    )
    workspace.node("c", PRINTS)
    restarting = {**sink(), "outputs": ["out"], "restart_policy": "on-failure"}
    reader = {"id": "c", "path": "c.py", "inputs": {"in": "b/out"}}
    out = flow_of(
        workspace, [SOURCE, restarting, reader], replace={"a": numbers(1, 2, 3, every=10)}
    ).run()
    assert out["b/out"].values == [[1], [2], [3]]
    assert out.lines("b") == ["0 None", "1 b'seen'"]
    assert "INPUT" in out.lines("c")[0]
    assert any("NODE_RESTARTED b" in line for line in out.lines("c"))


def test_killed_node_fails_the_test(workspace: Workspace) -> None:
    workspace.node("b", PRINTS)
    flow = flow_of(workspace, [SOURCE, sink()], replace={"a": numbers(1, 2, 3)})
    flow.kill("b", at=1.5)
    with pytest.raises(FlowError, match=r'(?s)node "b" failed.*SIGKILL.*INPUT in'):
        flow.run("5s")
    out = flow.run("5s", may_fail=["b"])
    assert len(out.lines("b")) == 2


def test_parameters(workspace: Workspace) -> None:
    workspace.node("b", PRINTS)
    flow = flow_of(workspace, [SOURCE, sink()], replace={"a": numbers(1)})
    flow.set_param("b", "gain", 2, at=0.5)
    flow.delete_param("b", "gain", at=0.75)
    assert flow.run("1s").lines("b")[1:3] == [
        "0.500 PARAM_UPDATE gain gain",
        "0.750 PARAM_DELETED gain gain",
    ]


def test_service_is_answered_with_the_same_ids_in_each_run(workspace: Workspace) -> None:
    workspace.node(
        "client",
        """
        from dora import Node
        node = Node()
        for event in node:
            if event["type"] != "INPUT":
                continue
            if event["id"] == "tick":
                node.send_service_request("request", bytes([1, 2]))
            else:
                print(event["value"].to_pylist(), flush=True)
        """,
    )
    workspace.node(
        "server",
        """
        from dora import Node
        node = Node()
        for event in node:
            if event["type"] == "INPUT":
                total = sum(event["value"].to_pylist())
                node.send_service_response("response", bytes([total]), event["metadata"])
        """,
    )
    flow = flow_of(
        workspace,
        [
            {
                "id": "client",
                "path": "client.py",
                "inputs": {"tick": "dora/timer/secs/1", "response": "server/response"},
                "outputs": ["request"],
            },
            {
                "id": "server",
                "path": "server.py",
                "inputs": {"request": "client/request"},
                "outputs": ["response"],
            },
        ],
    )
    out = flow.run("2s")
    assert out.lines("client") == ["[3]"] * 3
    assert flow.run("2s").fingerprint() == out.fingerprint()


def test_operator(workspace: Workspace) -> None:
    workspace.node(
        "op",
        """
        from dora import DoraStatus
        class Operator:
            def on_event(self, event, send_output):
                if event["type"] == "INPUT":
                    send_output("out", event["value"])
                return DoraStatus.CONTINUE
        """,
    )
    node = {
        "id": "b",
        "operators": [
            {"id": "op", "python": "op.py", "inputs": {"in": "a/out"}, "outputs": ["out"]}
        ],
    }
    out = flow_of(workspace, [SOURCE, node], replace={"a": numbers(1, 2)}).run()
    assert out["b/op/out"].values == [[1], [2]]


def test_printed_lines_are_sent(workspace: Workspace) -> None:
    workspace.node("b", PRINTS)
    workspace.node("c", ECHO)
    printing = {**sink(), "outputs": ["text"], "send_stdout_as": "text"}
    reader = {"id": "c", "path": "c.py", "inputs": {"in": "b/text"}, "outputs": ["out"]}
    out = flow_of(workspace, [SOURCE, printing, reader], replace={"a": numbers(5)}).run("1s")
    assert out["c/out"].values[0] == ["0.000 INPUT in [5]"]


def test_asyncio_node(workspace: Workspace) -> None:
    workspace.node(
        "b",
        """
        import asyncio
        import pyarrow as pa
        from dora import Node

        async def beat(node):
            for _ in range(3):
                await asyncio.sleep(0.4)
                node.send_output("out", pa.array([0]))

        async def main():
            node = Node()
            beats = asyncio.create_task(beat(node))
            async for event in node:
                if event["type"] == "INPUT":
                    node.send_output("out", event["value"])
            await beats

        asyncio.run(main())
        """,
    )
    node = {**sink(), "outputs": ["out"]}
    out = flow_of(workspace, [SOURCE, node], replace={"a": numbers(1, 2)}).run("2s")
    assert out["b/out"].values == [[1], [0], [0], [2], [0]]
    assert out["b/out"].times == pytest.approx([0, 0.4, 0.8, 1.0, 1.2])


def test_node_that_polls(workspace: Workspace) -> None:
    workspace.node(
        "b",
        """
        import time
        from dora import Node
        node = Node()
        while (event := node.try_recv()) is None or event["type"] != "STOP":
            if event is not None:
                node.send_output("out", event["value"])
            time.sleep(0.01)
        """,
    )
    node = {**sink(), "outputs": ["out"]}
    out = flow_of(workspace, [SOURCE, node], replace={"a": numbers(1, 2)}).run("2s")
    assert out["b/out"].values == [[1], [2]]
    assert out["b/out"].times == pytest.approx([0.0, 1.0], abs=0.02)


def test_function_as_source(workspace: Workspace) -> None:
    workspace.node("b", ECHO)
    source = from_function(lambda t: None if t < 0.5 else ([round(t, 3)], {"t": t}), every=0.25)
    node = {**sink(), "outputs": ["out"]}
    out = flow_of(workspace, [SOURCE, node], replace={"a": source}).run("1s")
    assert out["b/out"].values == [[0.5], [0.75], [1.0]]
    assert out["b/out"][1].metadata["t"] == 0.75


def test_log_lines_are_inputs(workspace: Workspace) -> None:
    workspace.node(
        "b",
        """
        from dora import Node
        node = Node()
        for event in node:
            if event["type"] == "INPUT":
                node.log_warn("hot")
                print("only printed", flush=True)
        """,
    )
    workspace.node("c", ECHO)
    reader = {"id": "c", "path": "c.py", "inputs": {"log": "dora/logs/warn"}, "outputs": ["out"]}
    flow = flow_of(workspace, [SOURCE, sink(), reader], replace={"a": numbers(5)})
    out = flow.run("1s")
    (text,) = (json.loads(value[0]) for value in out["c/out"].values)
    assert (text["message"], text["level"], text["node_id"]) == ("hot", "WARN", "b")
    assert text["timestamp"].startswith("2026-01-01T00:00:00")
    assert flow.run("1s").fingerprint() == out.fingerprint()


def test_sender_on_a_full_cycle_gives_up_as_in_a_run(workspace: Workspace) -> None:
    script = """
        from dora_node_api import BackpressureDeadlock, Node
        node = Node()
        node.send_output("out", b"")
        try:
            for event in node:
                if event["type"] == "INPUT":
                    for _ in range(3):
                        node.send_output("out", b"")
        except BackpressureDeadlock as error:
            print(node.timestamp().second, error, flush=True)
    """
    nodes = []
    for name, other in ("ab", "ba"):
        workspace.node(name, script)
        inputs = {"in": {"source": f"{other}/out", "queue_size": 1, "queue_policy": "backpressure"}}
        nodes.append({"id": name, "path": f"{name}.py", "inputs": inputs, "outputs": ["out"]})
    out = flow_of(workspace, nodes).run("20s")
    (line,) = out.lines("a") + out.lines("b")
    assert line.startswith("5 ")
    assert "form a cycle of backpressure: a -> b -> a" in line
