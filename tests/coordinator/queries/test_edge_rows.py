"""Edges between two machines become one row."""

from __future__ import annotations

from dora_config.protocol.links import LinkCounters
from dora_config.protocol.runner import EdgeStatus, Statistics
from dora_config.protocol.snapshot import EdgeSummary, MachineSample
from dora_coordinator.queries.edge_rows import edge_rows

ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"


def edge(target: str, crossing: LinkCounters | None = None, **counters: int) -> EdgeStatus:
    return EdgeStatus.model_validate(
        {
            "source": "camera/image",
            "target": target,
            "policy": "drop_oldest",
            "bound": 10,
            "crossing": crossing,
            **counters,
        }
    )


def sample(*edges: EdgeStatus, at: float = 5.0) -> MachineSample:
    return MachineSample(parts={ID: Statistics(at=at, edges=edges)})


def rows(**samples: MachineSample) -> list[EdgeSummary]:
    return list(edge_rows(samples, {ID: "vision"}))


def test_an_edge_on_one_machine() -> None:
    local = edge("plot/image", sent=9, received=5, dropped=3, queued=1, bytes_received=70)
    assert rows(robot=sample(local)) == [
        EdgeSummary(
            dataflow=ID,
            dataflow_name="vision",
            source="camera/image",
            target="plot/image",
            source_machine="robot",
            target_machine="robot",
            policy="drop_oldest",
            bound=10,
            sent=9,
            received=5,
            dropped=3,
            queued=1,
            bytes=70,
            at=5.0,
        )
    ]


def test_both_ends_of_a_link_are_one_edge() -> None:
    out = edge(
        "station (link)",
        LinkCounters(machine="station", messages=80, lost=2, waiting=4),
        sent=100,
        received=84,
        dropped=11,
        queued=5,
    )
    entering = edge(
        "plot/image",
        LinkCounters(machine="robot", messages=78, lost=2),
        sent=78,
        received=70,
        dropped=5,
        queued=3,
    )
    (row,) = rows(robot=sample(out), station=sample(entering, at=8.0))
    assert (row.source_machine, row.target_machine, row.at) == ("robot", "station", 8.0)
    assert (row.sent, row.received, row.lost) == (100, 70, 2)
    assert row.dropped == 11 + 5
    assert row.queued == 5 + 4 + 3
    assert row.sent == row.received + row.dropped + row.lost + row.queued


def test_the_sending_end_knows_what_crosses() -> None:
    why = "messages cross uncompressed (jpeg): its metadata has no `width` and `height`"
    sends = LinkCounters(machine="station", raw_bytes=900, wire_bytes=90, uncompressed=why)
    entering = edge("plot/image", LinkCounters(machine="robot", messages=78))
    (row,) = rows(robot=sample(edge("station (link)", sends)), station=sample(entering))
    assert (row.raw_bytes, row.wire_bytes, row.ratio) == (900, 90, 0.1)
    assert row.uncompressed == why


def test_an_edge_whose_source_machine_does_not_answer() -> None:
    entering = edge("plot/image", LinkCounters(machine="robot", lost=2), sent=78, received=70)
    (row,) = rows(station=sample(entering))
    assert (row.source_machine, row.sent, row.lost) == ("robot", 78, 2)


def test_dataflows_that_have_ended_meanwhile_are_left_out() -> None:
    assert list(edge_rows({"robot": sample(edge("plot/image"))}, {})) == []
