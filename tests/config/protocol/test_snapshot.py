"""Rates and latencies of an edge between two snapshots."""

from __future__ import annotations

import pytest

from dora_config.protocol.runner import quantile
from dora_config.protocol.snapshot import (
    EdgeRates,
    EdgeSummary,
    Snapshot,
    all_edge_rates,
    edge_rates,
)


def edge(**fields: object) -> EdgeSummary:
    return EdgeSummary.model_validate(
        {
            "dataflow": "d",
            "source": "a/out",
            "target": "b/in",
            "source_machine": "robot",
            "target_machine": "robot",
            "policy": "drop_oldest",
            **fields,
        }
    )


def test_rates_between_two_samples() -> None:
    before = edge(at=10.0, sent=100, received=90, dropped=10, bytes=1000, latency=((1000, 90),))
    now = edge(
        at=12.0,
        sent=130,
        received=110,
        dropped=15,
        lost=5,
        bytes=3000,
        latency=((1000, 90), (2000, 19), (9000, 1)),
    )
    assert edge_rates(before, now) == EdgeRates(
        messages=10.0, bytes=1000.0, drops=5.0, p50=2e-6, p99=9e-6
    )


def test_a_first_sample_has_latencies_only() -> None:
    assert edge_rates(None, edge(at=1.0, received=2, latency=((64, 2),))) == EdgeRates(
        p50=64e-9, p99=64e-9
    )


@pytest.mark.parametrize("now", [edge(at=2.0, received=1), edge(at=1.0, received=9)])
def test_no_rates_of_an_edge_that_was_created_again(now: EdgeSummary) -> None:
    assert edge_rates(edge(at=1.0, received=5), now) == EdgeRates()


def test_an_idle_edge_has_a_rate_of_zero_and_no_latency() -> None:
    same = edge(at=1.0, received=5, latency=((64, 5),))
    assert edge_rates(same, same.model_copy(update={"at": 2.0})) == EdgeRates(
        messages=0.0, bytes=0.0, drops=0.0
    )


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.0, 64e-9), (0.5, 64e-9), (0.51, 128e-9), (1.0, 1e-6)]
)
def test_quantiles(fraction: float, expected: float) -> None:
    assert quantile(((64, 50), (128, 49), (1000, 1)), fraction) == expected
    assert quantile((), fraction) is None


def test_rates_of_all_edges_by_key() -> None:
    before = Snapshot(edges=(edge(at=1.0, received=5),))
    now = Snapshot(edges=(edge(at=2.0, received=6), edge(at=2.0, target="c/in")))
    rates = all_edge_rates(before, now)
    assert rates["d", "a/out", "b/in"].messages == 1.0
    assert rates["d", "a/out", "c/in"] == EdgeRates()
