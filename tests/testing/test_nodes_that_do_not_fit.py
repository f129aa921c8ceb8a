"""Nodes that wait elsewhere, end early, use threads or read other clocks: documented results."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.workspace import Workspace

from dora_testing import Flow, FlowError, engine, from_messages


def flow_of(workspace: Workspace, script: str, **settings: Any) -> Flow:
    """Return a flow of a node with this script, which gets a number each second."""
    workspace.node("b", script)
    nodes = [
        {"id": "a", "path": "a.py", "outputs": ["out"]},
        {"id": "b", "path": "b.py", "inputs": {"in": "a/out"}, "outputs": ["out"]},
    ]
    messages = from_messages([(0.0, [0]), (1.0, [1]), (2.0, [2])])
    return Flow(workspace.dataflow({"nodes": nodes}), replace={"a": messages}, **settings)


def test_node_that_never_asks_again(workspace: Workspace) -> None:
    flow = flow_of(
        workspace,
        """
        from dora import Node
        node = Node()
        print("got", node.next()["type"])
        while True:
            pass
        """,
        patience=2,
    )
    with pytest.raises(FlowError) as failure:
        flow.run("5s")
    text = str(failure.value)
    assert text.startswith(
        'node "b" does not come back for events: it neither ended nor called `next`, `recv_async`'
        " or `time.sleep` within 2 s; `patience=` allows more; its last lines:\n    got INPUT"
    )
    assert re.search(r'b\.py", line [45] in <module>', text), "where it hangs"


def test_sleep_of_ten_seconds_passes_at_once(workspace: Workspace) -> None:
    flow = flow_of(
        workspace,
        """
        import time
        from dora import Node
        node = Node()
        for event in node:
            if event["type"] == "INPUT":
                time.sleep(10)
                node.send_output("out", event["value"])
        """,
    )
    out = flow.run("40s")
    assert out["b/out"].values == [[0], [1], [2]]
    assert out["b/out"].times == [10.0, 20.0, 30.0]


def test_node_that_ends_early(workspace: Workspace) -> None:
    script = """
        import sys
        from dora import Node
        Node().next()
        print("no more")
        sys.exit({code})
    """
    out = flow_of(workspace, script.format(code=0)).run("5s")
    assert out.nodes["b"].outcome == "success"
    with pytest.raises(FlowError, match=r'node "b" failed: .*code 3; its last lines:\s+no more'):
        flow_of(workspace, script.format(code=3)).run("5s")


def test_node_that_fails_before_it_connects(workspace: Workspace) -> None:
    with pytest.raises(FlowError, match=r'(?s)node "b" failed.*No module named .missing'):
        flow_of(workspace, "import missing\n").run("5s")


def test_thread_has_the_time_of_the_machine(workspace: Workspace) -> None:
    flow = flow_of(
        workspace,
        """
        import threading, time
        from dora import Node
        node = Node()
        def work():
            time.sleep(0.01)
            node.send_output("out", b"thread")
            print(time.time() > 1_767_300_000)
        for event in node:
            if event["type"] == "INPUT":
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
        """,
    )
    out = flow.run("5s")
    assert out.lines("b") == ["True"] * 3
    assert out["b/out"].times == [0.0, 1.0, 2.0]


def test_clock_gettime_has_the_time_of_the_machine(workspace: Workspace) -> None:
    flow = flow_of(
        workspace,
        """
        import datetime, time
        from dora import Node
        node = Node()
        print(time.time() < 1_767_300_000)
        print(time.clock_gettime(time.CLOCK_REALTIME) > 1_767_300_000)
        print(datetime.datetime.now().timestamp() > 1_767_300_000)
        for event in node:
            pass
        """,
    )
    assert flow.run("1s").lines("b") == ["True"] * 3


def test_child_processes_have_the_time_of_the_machine(workspace: Workspace) -> None:
    flow = flow_of(
        workspace,
        """
        import multiprocessing, subprocess, sys, time
        from dora import Node
        node = Node()
        code = "import time; print(time.time() > 1_767_300_000)"
        print(subprocess.check_output([sys.executable, "-c", code], text=True).strip(), flush=True)
        forked = multiprocessing.get_context("fork")
        child = forked.Process(target=lambda: print(time.time() > 1_767_300_000, flush=True))
        child.start()
        child.join()
        for event in node:
            pass
        """,
    )
    assert flow.run("1s").lines("b") == ["True", "True"]


def test_node_that_ignores_stop_is_ended_as_in_a_run(workspace: Workspace) -> None:
    flow = flow_of(
        workspace,
        """
        import time
        from dora import Node
        node = Node()
        while True:
            time.sleep(1)
        """,
    )
    out = flow.run("5s")
    assert out.nodes["b"].signal == "SIGTERM"
    assert out.seconds == 15


def test_nodes_in_a_circle_without_cost(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MOST_STEPS", 300)
    script = """
        from dora import Node
        node = Node()
        {first}
        for event in node:
            if event["type"] == "INPUT":
                node.send_output("out", event["value"])
    """
    workspace.node("a", script.format(first='node.send_output("out", b"")'))
    workspace.node("b", script.format(first=""))
    nodes = [
        {"id": "a", "path": "a.py", "inputs": {"in": "b/out"}, "outputs": ["out"]},
        {"id": "b", "path": "b.py", "inputs": {"in": "a/out"}, "outputs": ["out"]},
    ]
    path = workspace.dataflow({"nodes": nodes})
    with pytest.raises(FlowError, match=r"same virtual time.*give one of them a `cost`"):
        Flow(path).run("1s")
    out = Flow(path, cost={"b": "100ms"}).run("1s")
    assert len(out["a/out"]) == 11


def test_unknown_names(workspace: Workspace) -> None:
    flow_of(workspace, "from dora import Node\nfor event in Node(): pass\n")
    path = workspace.path / "dataflow.yml"
    with pytest.raises(FlowError, match=r'node "c" does not exist; .* has: a, b'):
        Flow(path, replace={"c": from_messages([])})
    with pytest.raises(FlowError, match=r'latency: node "b" has no input or output `x`'):
        Flow(path, latency={"b/x": 1})
    with pytest.raises(FlowError, match=r"Could not find source path `a.py`"):
        Flow(path).run()
    with pytest.raises(FlowError, match=r"has no output `y`; it has: out"):
        Flow(path, replace={"a": from_messages({"y": [(0, [1])]})}).run()
