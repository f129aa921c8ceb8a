"""When a recording ends and when it begins another file."""

from __future__ import annotations

from pathlib import Path

from dora_daemon.recording.limits import Limits


def test_without_limits_nothing_ends() -> None:
    limits = Limits(None, None, None, None)
    assert not limits.ended(1 << 60, 1e9)
    assert not limits.file_ended(1 << 60, 1e9)
    assert limits.file_name(Path("/r/a.mcap"), 0) == Path("/r/a.mcap")


def test_size_and_age_end_the_recording() -> None:
    limits = Limits(100, 10.0, None, None)
    assert not limits.ended(99, 9.9)
    assert limits.ended(100, 0.0)
    assert limits.ended(0, 10.0)


def test_files_of_a_split_recording_are_numbered() -> None:
    limits = Limits(None, None, 100, 10.0)
    assert not limits.file_ended(99, 9.9)
    assert limits.file_ended(100, 0.0)
    assert limits.file_ended(0, 10.0)
    assert limits.file_name(Path("/r/a.mcap"), 2) == Path("/r/a_2.mcap")
