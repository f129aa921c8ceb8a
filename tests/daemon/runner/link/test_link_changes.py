"""Adding and removing nodes and edges of a running dataflow on two machines."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

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
from support.runner.linked import Linked, linked, own_ports
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.dataflow.resolved import ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import LogSource, OutputSource
from dora_config.protocol import runner as protocol
from dora_config.protocol.links import LinkPlan, RemoteEdge, SetLinks

pytestmark = pytest.mark.integration


def ask(flow: Linked, machine: str, request: protocol.RunnerRequest) -> None:
    reply = flow[machine].run.request(request)
    assert reply == protocol.Done(), reply


def refused(flow: Linked, machine: str, request: protocol.RunnerRequest) -> str:
    reply = flow[machine].run.request(request)
    assert isinstance(reply, protocol.Refusal), reply
    return reply.message


def edge(source: str, target: str, machines: str, **fields: Any) -> RemoteEdge:
    (a, _, x), (b, y) = source.partition("/"), target.split("/")
    here, there = machines.split()
    return RemoteEdge(
        source=a,
        output=x,
        target=b,
        input=y,
        queue_size=100,
        queue_policy="backpressure",
        source_machine=here,
        target_machine=there,
        **fields,
    )


def set_links(flow: Linked, *more: RemoteEdge) -> None:
    """Send the edges of the plan and some more to every part, as the coordinator does."""
    for number, part in enumerate(flow.parts.values()):
        first = own_ports(number)
        plan = part.plan.links or LinkPlan(
            machine=part.machine,
            run_id=f"{part.machine}-late",
            listen_host="127.0.0.1",
            first_port=first,
            last_port=first + 19,
            edges=(),
        )
        plan = plan.model_copy(update={"edges": (*plan.edges, *more)})
        part.plan = part.plan.model_copy(update={"links": plan})
        ask(flow, part.machine, SetLinks(links=plan, credentials=part.plan.credentials))


def in_order(path: Path) -> bool:
    """Return whether the numbers are consecutive."""
    got = numbers(path)
    return bool(got) and got == list(range(got[0], got[0] + len(got)))


def writer_node(name: str, workspace: Workspace, out: Path, source: str) -> ResolvedNode:
    producer, _, output = source.partition("/")
    wanted = ResolvedInput(
        source=OutputSource(node=producer, output=output),
        queue_size=100,
        queue_policy="backpressure",
    )
    return ResolvedNode(
        id=name,
        path=str(workspace.path / "writer.py"),
        args=(str(out),),
        inputs={"number": wanted},
    )


def connect_input(source: str) -> protocol.ConnectInput:
    """Return the request for the input `b/number`."""
    return protocol.ConnectInput(
        source=source,
        output="number",
        target="b",
        input="number",
        queue_size=100,
        queue_policy="backpressure",
    )


def test_an_input_is_connected_to_another_machine(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 100_000, 0.002, outputs=["number"]),
        node("other", "counter", 100_000, 0.01, outputs=["number"]),
        node("b", "writer", out, inputs={"first": reads("other/number")}),
    )
    with linked(programs, content, {"a": "one", "other": "one", "b": "two"}) as flow:
        wait_until(lambda: numbers(out, "first"), what="the first input")
        wanted = connect_input("a")
        assert "does not exist" in refused(flow, "two", wanted)
        set_links(flow, edge("a/number", "b/number", "one two"))
        ask(flow, "two", wanted)
        wait_until(
            lambda: len(numbers(out)) > 50,
            what=lambda: f"{flow['one'].state()}\n{flow['two'].state()}",
        )
        ask(
            flow,
            "two",
            protocol.DisconnectInput(source="a", output="number", target="b", input="number"),
        )
        wait_until(lambda: ["INPUT_CLOSED", "number", None] in events(out), what="its end")
        # it has no readers there any more, so its sender does not wait
        wait_until(
            lambda: flow["one"].edges()["a/number -> two (link)"].sent > 600,
            what="a sender that goes on",
        )
        stop(flow)
    assert in_order(out)


def test_added_nodes_exchange_messages_across_machines(programs: Workspace) -> None:
    """Also without a link before."""
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 100_000, 0.002, outputs=["number"]),
        node("b", "counter", 100_000, 0.002, outputs=["number"]),
    )
    with linked(programs, content, {"a": "one", "b": "two"}, release=False) as flow:
        flow.release()
        for part in flow.parts.values():
            assert part.run.status().state.link is None
        set_links(flow, edge("a/number", "late/number", "one two"))
        flow.connect()
        flow.wait_until_connected()
        added = writer_node("late", programs, out, "a/number")
        ask(flow, "two", protocol.AddNode(node=added))
        wait_until(
            lambda: len(numbers(out)) > 50,
            what=lambda: f"{flow['one'].state()}\n{flow['two'].state()}",
        )
        ask(flow, "two", protocol.RemoveNode(node="late"))
        set_links(flow)
        sent = flow["one"].run.status()
        assert sent.state.link is not None
        stop(flow)
    assert in_order(out)


def test_an_added_node_is_read_on_another_machine(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 100_000, 0.01, outputs=["number"]),
        node("b", "writer", out, inputs={"first": reads("a/number")}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        set_links(flow, edge("new/number", "b/number", "one two"))
        ask(flow, "two", connect_input("new"))
        added = ResolvedNode(
            id="new",
            path=str(programs.path / "counter.py"),
            args=("200",),
            outputs=("number",),
        )
        ask(flow, "one", protocol.AddNode(node=added))
        wait_until(
            lambda: ["INPUT_CLOSED", "number", None] in events(out),
            what="the end of the new node",
        )
        stop(flow)
    assert numbers(out) == list(range(200))


@pytest.mark.parametrize("target", ["b", "late"])
def test_an_input_is_connected_once_the_other_machine_sends(
    programs: Workspace, target: str
) -> None:
    """Before, that one drops what has no consumer, and a node that is added next loses messages."""
    out = programs.path / "out.txt"
    content = flow_of(
        node("a", "counter", 100_000, 0.01, outputs=["number"]),
        node("b", "writer", out, inputs={"first": reads("a/number")}),
    )
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        set_links(flow, edge("new/number", f"{target}/number", "one two"))
        flow.wait_until_connected()
        late = writer_node("late", programs, programs.path / "late.txt", "new/number")
        change = connect_input("new") if target == "b" else protocol.AddNode(node=late)
        os.kill(flow["one"].link_pid(), signal.SIGSTOP)
        with ThreadPoolExecutor() as pool:
            connected = pool.submit(ask, flow, "two", change)
            assert not wait([connected], timeout=1.0).done
            os.kill(flow["one"].link_pid(), signal.SIGCONT)
            connected.result()
        stop(flow)


def test_an_added_node_reads_log_lines_of_another_machine(programs: Workspace) -> None:
    programs.node(
        "talker",
        """
        import time
        from dora import Node
        node = Node()
        for number in range(100_000):
            print('{"level": "warn", "message": "line %d"}' % number, flush=True)
            time.sleep(0.01)
        """,
    )
    first, second = programs.path / "first.txt", programs.path / "second.txt"
    content = flow_of(
        node("talker", "talker", outputs=["unused"]),
        node("viewer", "writer", first, inputs={"logs": "dora/logs/warn"}),
    )
    with linked(programs, content, {"talker": "one", "viewer": "two"}) as flow:
        wait_until(lambda: numbers(first, "logs"), what="lines for the first reader")
        set_links(flow, edge("dora/logs/warn", "late/logs", "one two"))
        late = ResolvedNode(
            id="late",
            path=str(programs.path / "writer.py"),
            args=(str(second),),
            inputs={"logs": ResolvedInput(source=LogSource(level="warn"))},
        )
        ask(flow, "two", protocol.AddNode(node=late))
        wait_until(lambda: numbers(second, "logs"), what=lambda: flow["two"].state())
        stop(flow)


def test_both_ends_of_a_link_are_replaced(programs: Workspace) -> None:
    out = programs.path / "out.txt"
    content = counting(out, 100_000, 0.002)
    with linked(programs, content, {"a": "one", "b": "two"}) as flow:
        wait_until(lambda: len(numbers(out)) > 50, what="messages")
        again = programs.path / "again.txt"
        ask(
            flow,
            "two",
            protocol.ReplaceNode(node=writer_node("b", programs, again, "a/number")),
        )
        wait_until(lambda: len(numbers(again)) > 50, what="messages for the new one")
        replaced = flow["one"].plan.resolved.nodes[0].model_copy(update={"args": ("500",)})
        ask(flow, "one", protocol.ReplaceNode(node=replaced))
        wait_until(lambda: events(again)[-1][0] == "STOP", what="the end of the new source")
        results(flow)
    received = events(again)
    restart = received.index(["NODE_RESTARTED", "a", None])
    first, second = received[:restart], received[restart + 1 :]
    assert [v[0] for k, _, v in second if k == "INPUT"] == list(range(500))
    got = numbers(out) + [v[0] for k, _, v in first if k == "INPUT"]
    assert got == sorted(set(got))
