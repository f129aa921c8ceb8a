"""What a measured connection between two machines means."""

from __future__ import annotations

from typing import Any

import pytest

from dora_cluster.operations.doctor import assess_pair, data_ports
from dora_config.cluster.models import Machine

ROBOT = Machine(id="robot", host="10.0.0.2")
GPU = Machine(id="gpu", host="10.0.0.3", zenoh_port=65500)


@pytest.mark.parametrize(
    ("ping", "cell", "problem"),
    [
        ({"seconds": 0.002, "clock": 0.0}, "2.00 ms +0.00 ms", ""),
        ({"seconds": 0.2, "clock": 0.1}, "200.00 ms +100.00 ms", "a round trip takes 200 ms"),
        ({"seconds": 0.002, "clock": -0.02}, "2.00 ms -20.00 ms", ""),
        ({"seconds": 0.002, "clock": 90.0}, "2.00 ms +90.0 s", ""),  # a problem of its machine
        ({"reason": "timed out"}, "FAILED", "no data link: timed out; open ports 65500-65535"),
    ],
)
def test_assessment(ping: dict[str, Any], cell: str, problem: str) -> None:
    shown, found = assess_pair(ROBOT, GPU, ping)
    assert shown == cell
    assert (found or "").startswith(problem)
    assert (found is None) == (problem == "")


def test_ports_of_a_machine() -> None:
    assert data_ports(ROBOT) == (7450, 7549)
    assert data_ports(GPU) == (65500, 65535)
