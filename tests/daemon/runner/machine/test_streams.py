"""Streams computed from the edges between machines."""

from __future__ import annotations

from typing import Any

import pytest

from dora_config.dataflow.compression import Compression
from dora_config.protocol.links import LinkPlan, RemoteEdge
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.streams import (
    LOG_LINES,
    RUNNER_NODE,
    IncomingStreamSpec,
    OutgoingStreamSpec,
    crossing_cycles,
    streams_of,
)
from dora_node_api.queue_policy import QueuePolicy

JPEG, H264, ZSTD = (Compression(codec=codec) for codec in ("jpeg", "h264", "zstd"))
BETTER = Compression(codec="jpeg", quality=95)


def edge(source: str, target: str, machines: str, **fields: Any) -> RemoteEdge:
    node, _, output = source.partition("/")
    consumer, _, input_id = target.partition("/")
    here, _, there = machines.partition(" ")
    fields.setdefault("queue_size", 10)
    return RemoteEdge(
        source=node,
        output=output,
        target=consumer,
        input=input_id,
        source_machine=here,
        target_machine=there,
        **fields,
    )


def plan(machine: str, *edges: RemoteEdge) -> LinkPlan:
    return LinkPlan(machine=machine, run_id="r", listen_host="127.0.0.1", edges=edges)


def test_an_output_crosses_once_for_all_readers_on_a_machine() -> None:
    streams = streams_of(
        plan(
            "a",
            edge("cam/image", "plot/image", "a b", queue_size=3),
            edge("cam/image", "save/image", "a b", queue_size=50, queue_policy="backpressure"),
            edge("cam/image", "show/image", "a c", queue_size=2),
        )
    )
    assert streams.outgoing == (
        OutgoingStreamSpec("b", "cam", "image", 50, QueuePolicy.BACKPRESSURE),
        OutgoingStreamSpec("c", "cam", "image", 2, QueuePolicy.DROP_OLDEST),
    )
    assert streams.outgoing[0].edge == Edge("cam", "image", LINK_NODE, "b cam/image")
    assert streams.outgoing_at(streams.outgoing[1].edge) == streams.outgoing[1]
    assert streams.remote_nodes == frozenset()


@pytest.mark.parametrize(
    ("readers", "chosen"),
    [
        ((JPEG, JPEG), JPEG),
        ((JPEG, None), None),  # a reader without `compress` gets no JPEG
        ((H264, JPEG), JPEG),
        ((H264, H264), H264),
        ((ZSTD, JPEG, None), ZSTD),  # lossless: it changes nothing for the others
        ((JPEG, BETTER), BETTER),
        ((None,), None),
    ],
)
def test_an_output_crosses_with_the_codec_that_changes_it_least(
    readers: tuple[Compression | None, ...], chosen: Compression | None
) -> None:
    edges = [
        edge("cam/image", f"plot{n}/image", "a b", compress=one) for n, one in enumerate(readers)
    ]
    (stream,) = streams_of(plan("a", *edges)).outgoing
    assert stream.compress == chosen


def test_incoming_streams_are_grouped_by_source() -> None:
    streams = streams_of(
        plan(
            "b",
            edge("cam/image", "plot/image", "a b"),
            edge("cam/image", "save/image", "a b"),
            edge("gps/fix", "plot/fix", "c b"),
            edge("gps/fix", "other/fix", "c a"),
        )
    )
    assert streams.outgoing == ()
    assert streams.incoming == (
        IncomingStreamSpec("a", "cam", "image", (("plot", "image"), ("save", "image"))),
        IncomingStreamSpec("c", "gps", "fix", (("plot", "fix"),)),
    )
    assert streams.sources == {("cam", "image"): "a", ("gps", "fix"): "c"}
    assert streams.remote_nodes == {"cam", "gps"}


def test_cycles_over_machines_have_the_queues_of_this_machine() -> None:
    cycle = (("a", "b"),)
    there = edge("a/x", "b/x", "one two", queue_policy="backpressure", cycles=cycle)
    back = edge("b/y", "a/y", "two one", queue_policy="backpressure", cycles=cycle)
    assert crossing_cycles(plan("one", there, back)) == (("a", "b", f"{LINK_NODE}/two a/x"),)
    assert crossing_cycles(plan("two", there, back)) == (("a", "b", f"{LINK_NODE}/one b/y"),)
    assert crossing_cycles(plan("one", edge("a/x", "b/x", "one two"))) == ()


def test_log_lines_cross_in_streams_that_name_their_machine() -> None:
    crossing = (
        edge("dora/logs/info", "viewer/all", "a b", queue_size=5),
        edge("dora/logs/info", "viewer/again", "a b", queue_size=5),
        edge("dora/logs/info", "viewer/all", "c b", queue_size=5),
    )
    (leaving,) = streams_of(plan("a", *crossing)).outgoing
    assert leaving == OutgoingStreamSpec(
        "b", "dora", "a/logs/info", LOG_LINES, QueuePolicy.DROP_OLDEST, "dora/logs/info"
    )
    entering = streams_of(plan("b", *crossing))
    assert [(flow.machine, flow.output) for flow in entering.incoming] == [
        ("a", "a/logs/info"),
        ("c", "c/logs/info"),
    ]
    assert entering.incoming[0].readers == (("viewer", "all"), ("viewer", "again"))
    assert entering.incoming[0].log_edge == Edge("dora", "a/logs/info", RUNNER_NODE, "a/logs/info")
    assert entering.remote_nodes == frozenset()
