"""Metrics of a snapshot: names, types, units and labels, as complete text."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from dora_config.protocol.snapshot import (
    EdgeSummary,
    LinkSummary,
    MachineLoad,
    MachineSummary,
    NodeSummary,
    Snapshot,
)
from dora_coordinator.telemetry.families import LATENCY_BOUNDS, distribution, families
from dora_coordinator.telemetry.openmetrics import openmetrics
from dora_node_api.transport.shared import layout

ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
EDGE = EdgeSummary(
    dataflow=ID,
    dataflow_name="vision",
    source="camera/image",
    target="plot/image",
    source_machine="robot",
    target_machine="station",
    policy="drop_oldest",
    sent=100,
    received=80,
    dropped=16,
    lost=2,
    queued=2,
    bytes=8000,
    latency=((896, 1), (1024, 2), (1280, 3), (2_000_000, 70), (9_000_000_000, 4)),
    at=5.0,
)
SNAPSHOT = Snapshot(
    time=1.0,
    machines=(
        MachineSummary(
            daemon="robot",
            heartbeat_age=0.5,
            clock_offset=0.25,
            load=MachineLoad(cpus=4, cpu_seconds=12.5, memory_bytes=1000, memory_total_bytes=4000),
            links=(
                LinkSummary(
                    dataflow=ID,
                    machine="robot",
                    peer="station",
                    state="connected",
                    rtt_us=500,
                    clock_offset_us=-2000,
                ),
                LinkSummary(dataflow=ID, machine="robot", peer="dog", state="lost"),
            ),
        ),
        MachineSummary(daemon="station", connected=False),
    ),
    nodes=(
        NodeSummary(
            node="camera",
            dataflow=ID,
            dataflow_name="vision",
            daemon="robot",
            status="Running",
            pid=7,
            cpu_percent=3.0,
            cpu_seconds=1.5,
            memory_bytes=2000,
            restarts=2,
            queued=1,
            read_bytes=10,
            written_bytes=20,
            error="a text that must not become a label",
        ),
        NodeSummary(
            node="plot", dataflow=ID, dataflow_name="vision", daemon="station", status="Finished"
        ),
    ),
    edges=(EDGE, EDGE.model_copy(update={"target": "log/image"})),
    problems=("station does not answer",),
)


def test_the_complete_text() -> None:
    text = openmetrics(families(SNAPSHOT, max_edges=1)).decode()
    assert text == (Path(__file__).parent / "openmetrics.txt").read_text()


def test_the_text_is_valid_openmetrics() -> None:
    text = openmetrics(families(SNAPSHOT, max_edges=10)).decode()
    found = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(found) == 31
    for name, family in found.items():
        assert name.endswith(f"_{family.unit}" if family.unit else ""), name
        assert family.documentation.endswith("."), name
    assert len(found["dora_edge_sent_messages"].samples) == 2


def test_a_compressed_edge_has_the_bytes_before_and_between_machines() -> None:
    crosses = EDGE.model_copy(update={"raw_bytes": 4000, "wire_bytes": 240})
    text = openmetrics(families(Snapshot(edges=(crosses, EDGE)), max_edges=2)).decode()
    found = {family.name: family for family in text_string_to_metric_families(text)}
    (raw,) = found["dora_edge_sent_raw_bytes"].samples
    (wire,) = found["dora_edge_sent_wire_bytes"].samples
    assert (raw.value, wire.value) == (4000, 240)


def test_a_snapshot_of_nothing() -> None:
    text = openmetrics(families(Snapshot(), max_edges=1)).decode()
    assert text.endswith("dora_snapshot_problems 0.0\n# EOF\n")
    assert list(text_string_to_metric_families(text))


def test_names_may_contain_every_character() -> None:
    odd = EDGE.model_copy(update={"source": 'a"b\\c\nd/é'})
    text = openmetrics(families(Snapshot(edges=(odd,)), max_edges=1)).decode()
    found = {family.name: family for family in text_string_to_metric_families(text)}
    (sample,) = found["dora_edge_sent_messages"].samples
    assert sample.labels["source"] == 'a"b\\c\nd/é'


def test_exported_buckets_are_exact() -> None:
    """Each exported bound is a bound of the buckets that nodes count in."""
    bounds = {layout.bucket_start(index) for index in range(1, layout.HISTOGRAM_BUCKETS)}
    assert bounds.issuperset(LATENCY_BOUNDS)


@pytest.mark.parametrize("nanoseconds", [0, 1023, 1024, 1025, 70_000, 10**9, 10**12])
def test_a_latency_is_counted_in_its_bucket(nanoseconds: int) -> None:
    index = layout.latency_bucket(nanoseconds)
    found = distribution(((layout.bucket_start(index + 1), 5),))
    above = [bound for bound in LATENCY_BOUNDS if nanoseconds < bound]
    assert found.counts[len(LATENCY_BOUNDS) - len(above)] == sum(found.counts) == 5
