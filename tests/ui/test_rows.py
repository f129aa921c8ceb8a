"""Rows of the page from a snapshot."""

from __future__ import annotations

import json
from typing import Any

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import OutputSource, TimerSource
from dora_config.protocol.control import DataflowSummary, Described
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.links import PeerState
from dora_config.protocol.snapshot import (
    EdgeSummary,
    LinkSummary,
    MachineLoad,
    MachineOperation,
    MachineSummary,
    NodeSummary,
    Snapshot,
)
from dora_ui.rows import graph, state

UUID = "8a1c7a86-5b3c-4dd2-9f3e-6c1a3a9b1c11"
SOURCE = {"address": "127.0.0.1:6013", "readOnly": False}


def edge(received: int, dropped: int, at: float) -> EdgeSummary:
    return EdgeSummary(
        dataflow=UUID,
        source="camera/image",
        target="detector/image",
        source_machine="robot",
        target_machine="robot",
        policy="drop_oldest",
        sent=received + dropped,
        received=received,
        dropped=dropped,
        bytes=1000 * received,
        latency=((1_000_000, received),),
        at=at,
    )


def snapshot(time: float, *, busy: float, received: int, dropped: int) -> Snapshot:
    load = MachineLoad(cpus=2, cpu_seconds=busy, memory_bytes=123_456_789, memory_total_bytes=10**9)
    link = LinkSummary(dataflow=UUID, machine="robot", peer="gpu", state="connected", rtt_us=412)
    node = NodeSummary(
        node="camera", dataflow=UUID, daemon="robot", status="Running", cpu_percent=12.3456
    )
    return Snapshot(
        time=time,
        machines=(
            MachineSummary(daemon="robot", load=load, links=(link,)),
            MachineSummary(daemon="gpu", connected=False, heartbeat_age=30.0),
        ),
        nodes=(node,),
        edges=(edge(received, dropped, time),),
    )


def rows() -> dict[str, Any]:
    before = snapshot(100.0, busy=50.0, received=1000, dropped=0)
    now = snapshot(102.0, busy=51.0, received=1060, dropped=4)
    summary = DataflowSummary(uuid=UUID, name="vision", status="Running", nodes=1)
    return state(SOURCE, (summary,), now, before)


def test_rates_are_those_since_the_last_snapshot() -> None:
    found = rows()["edges"][UUID]["camera/image>detector/image"]
    assert (found["rate"], found["dropRate"], found["bytes"]) == (30, 2, 30000)
    assert found["p99Us"] == 1000
    assert rows()["dataflows"][UUID]["rate"] == 30


def test_an_edge_that_is_compressed_shows_what_crosses() -> None:
    before, now = (snapshot(at, busy=50.0, received=9, dropped=0) for at in (100.0, 102.0))
    sizes = ((before, 1000, 100), (now, 3000, 300))
    first, second = (
        one.model_copy(
            update={
                "edges": tuple(
                    edge.model_copy(update={"raw_bytes": raw, "wire_bytes": wire})
                    for edge in one.edges
                )
            }
        )
        for one, raw, wire in sizes
    )
    found = state(SOURCE, (), second, first)["edges"][UUID]["camera/image>detector/image"]
    assert (found["wire"], found["ratio"]) == (100, 0.1)
    found = state(SOURCE, (), now, before)["edges"][UUID]["camera/image>detector/image"]
    assert "wire" not in found
    assert "ratio" not in found


def test_the_first_snapshot_has_no_rates() -> None:
    summary = DataflowSummary(uuid=UUID, name="vision", status="Running", nodes=1)
    first = snapshot(100.0, busy=50.0, received=1000, dropped=0)
    assert "rate" not in state(SOURCE, (summary,), first, None)["dataflows"][UUID]


def test_load_of_a_machine_is_in_per_cent_of_all_its_processors() -> None:
    robot = rows()["machines"]["robot"]
    assert robot["cpu"] == 25.0
    assert robot["memory"] == 123_000_000
    assert robot["nodes"] == 1
    assert "seenAt" not in robot


def test_a_lost_machine_shows_when_it_was_seen() -> None:
    lost = rows()["machines"]["gpu"]
    assert (lost["status"], lost["seenAt"]) == ("lost", 72)


def test_links_and_nodes() -> None:
    assert rows()["links"]["robot>gpu"]["state"] == "connected"
    assert rows()["nodes"][UUID]["camera"] == {
        "status": "Running",
        "machine": "robot",
        "cpu": 12.3,
        "restarts": 0,
        "queued": 0,
    }
    assert rows()["dataflows"][UUID]["states"] == {"Running": 1}


def test_of_several_dataflows_the_worst_link_is_shown() -> None:
    def link(state: PeerState, rtt_us: int) -> LinkSummary:
        return LinkSummary(dataflow=UUID, machine="robot", peer="gpu", state=state, rtt_us=rtt_us)

    def shown(*links: LinkSummary) -> tuple[str, int]:
        machine = MachineSummary(daemon="robot", links=links)
        row = state(SOURCE, (), Snapshot(time=1.0, machines=(machine,)), None)["links"]["robot>gpu"]
        return row["state"], row["rttUs"]

    fast, slow, broken = link("connected", 200), link("connected", 900), link("connecting", 300)
    assert shown(fast, slow) == shown(slow, fast) == ("connected", 900)
    assert shown(slow, broken) == shown(broken, slow) == ("connecting", 300)


def test_what_works_on_a_machine_and_since_when_by_the_coordinators_clock() -> None:
    operation = MachineOperation(command="dora cluster upgrade", operator="ada", since=95.0)
    machine = MachineSummary(daemon="robot", operation=operation, clock_offset=5.0)
    found = state(SOURCE, (), Snapshot(time=100.0, machines=(machine,)), None)
    assert found["machines"]["robot"]["operation"] == {
        "command": "dora cluster upgrade",
        "operator": "ada",
        "since": 90,
    }


def test_an_unknown_clock_gives_no_duration() -> None:
    operation = MachineOperation(command="dora cluster upgrade", operator="ada", since=95.0)
    machine = MachineSummary(daemon="robot", operation=operation)
    found = state(SOURCE, (), Snapshot(time=100.0, machines=(machine,)), None)
    assert "since" not in found["machines"]["robot"]["operation"]


def test_rows_contain_no_null() -> None:
    assert "null" not in json.dumps(rows())


def test_graph_has_ports_and_no_environment() -> None:
    camera = ResolvedNode(
        id="camera",
        path="camera.py",
        env={"PASSWORD": "secret"},
        inputs={"tick": ResolvedInput(source=TimerSource(interval_ns=100_000_000))},
        outputs=("image",),
    )
    detector = ResolvedNode(
        id="detector",
        path="detector.py",
        inputs={"image": ResolvedInput(source=OutputSource(node="camera", output="image"))},
    )
    spec = DataflowSpec(resolved=ResolvedDataflow(nodes=(camera, detector)))
    found = graph(Described(uuid=UUID, spec=spec, daemons={"camera": "robot"}))
    assert found["nodes"][0]["inputs"][0]["source"] == "dora/timer/millis/100"
    assert found["nodes"][1]["inputs"][0]["source"] == "camera/image"
    assert found["nodes"][0]["machine"] == "robot"
    assert found["inspectable"] is False
    assert "secret" not in json.dumps(found)
