"""Number of usable processors."""

from __future__ import annotations

import os

from dora_node_api.transport.shared import cpu


def test_usable_cores_are_limited_by_the_machine() -> None:
    assert 0 < cpu.usable_cores() <= (os.cpu_count() or 1)


def test_quotas() -> None:
    assert cpu.parse_quota(["150000", "100000"]) == 1.5
    assert cpu.parse_quota(["max", "100000"]) is None
    assert cpu.parse_quota([]) is None
    assert cpu.parse_quota(["1", "0"]) is None
