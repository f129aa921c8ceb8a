"""Limits of processors and memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dora_node_api.transport.shared import limits


def test_usable_cores_are_limited_by_the_machine() -> None:
    assert 0 < limits.usable_cores() <= (os.cpu_count() or 1)


def test_quotas() -> None:
    assert limits.parse_quota("150000 100000\n") == 1.5
    assert limits.parse_quota("max 100000") is None
    assert limits.parse_quota("") is None
    assert limits.parse_quota("1 0") is None


@pytest.mark.parametrize(
    ("quota", "period"),
    [("cpu/a/cpu.cfs_quota_us", "cpu/a/cpu.cfs_period_us"), ("a/cpu.max", None)],
)
def test_quotas_of_both_versions_of_cgroups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, period: str | None
) -> None:
    monkeypatch.setattr(limits, "ROOT", str(tmp_path))
    monkeypatch.setattr(limits, "own_groups", lambda controller: ["", "/a"])
    (tmp_path / quota).parent.mkdir(parents=True)
    (tmp_path / quota).write_text("50000\n" if period else "50000 100000\n")
    if period:
        (tmp_path / period).write_text("100000\n")
    assert limits.usable_cores() == 0.5


@pytest.mark.parametrize(
    "limit", ["memory/robot.slice/memory.limit_in_bytes", "robot.slice/memory.max"]
)
def test_limits_of_both_versions_of_cgroups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(limits, "ROOT", str(tmp_path))
    monkeypatch.setattr(limits, "own_groups", lambda controller: ["", "/robot.slice"])
    assert limits.usable_memory() > 4096
    path = tmp_path / limit
    path.parent.mkdir(parents=True)
    path.write_text("4096\n")
    assert limits.usable_memory() == 4096
