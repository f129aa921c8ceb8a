"""Limits of recordings."""

from __future__ import annotations

from dora_config.protocol.recorders import RecordingLimits


def test_without_limits_nothing_ends() -> None:
    limits = RecordingLimits()
    assert not limits.ended(1 << 60, 1e9)
    assert not limits.file_ended(1 << 60, 1e9)
    assert not limits.splits


def test_size_and_age_end_the_recording() -> None:
    limits = RecordingLimits(max_bytes=100, max_seconds=10.0)
    assert not limits.ended(99, 9.9)
    assert limits.ended(100, 0.0)
    assert limits.ended(0, 10.0)


def test_size_and_age_end_a_file() -> None:
    limits = RecordingLimits(split_bytes=100, split_seconds=10.0)
    assert limits.splits
    assert not limits.file_ended(99, 9.9)
    assert limits.file_ended(100, 0.0)
    assert limits.file_ended(0, 10.0)
