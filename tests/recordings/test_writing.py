"""The thread that writes files: limits, and a disk that fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recordings.test_reading import SOURCE, sent
from support.waiting import wait_until

from dora_config.protocol.recorders import RecordingLimits, RecordingRequest
from dora_recordings.reading import Recording
from dora_recordings.writing import Writing

SECOND = 1_000_000_000


@contextmanager
def writing(path: Path, max_seconds: float | None = None) -> Iterator[Writing]:
    request = RecordingRequest(
        dataflow_id="flow", path=str(path), limits=RecordingLimits(max_seconds=max_seconds)
    )
    found = Writing(request, SOURCE)
    try:
        yield found
    finally:
        found.close()


def written(path: Path) -> list[int]:
    return [one.sequence for one in Recording(path).messages()]


def test_the_duration_begins_with_the_first_message(tmp_path: Path) -> None:
    path = tmp_path / "r.mcap"
    with writing(path, max_seconds=1e-9) as early:
        assert early.age == 0.0
        assert not early.limit_reached.wait(0.6)  # the thread has looked twice
    path.unlink()
    first = 5 * SECOND
    with writing(path, max_seconds=1e6) as long:
        limit = first + SECOND * 10**6
        for number, at in enumerate((first, limit - 1, limit, first + 1), start=1):
            long.add(sent("a/b", number, at))
        wait_until(long.limit_reached.is_set, what="the limit")
    assert written(path) == [1, 4, 2]  # the last one was read late
    assert long.lost == {}


def test_the_duration_of_a_recorder_without_outputs_begins_at_once(tmp_path: Path) -> None:
    with writing(tmp_path / "r.mcap", max_seconds=1e-9) as found:
        found.begin()
        wait_until(found.limit_reached.is_set, what="the limit")


def test_each_message_that_a_full_disk_does_not_take_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "r.mcap"
    with writing(path) as found:
        for number in range(1, 51):
            found.add(sent("a/b", number, number))
        wait_until(lambda: written(path), what="messages on disk")
        full = os.open("/dev/full", os.O_WRONLY)
        found._file._stream._descriptor = full
        for number in range(51, 101):
            found.add(sent("a/b", number, number))
        wait_until(lambda: found.problem, what="the failure")
        found.add(sent("a/b", 101, 101))
        found.drop("a/b", 4)
    os.close(full)
    assert found.problem == f"{path}: No space left on device"
    assert found.recorded == {"a/b": len(written(path))}
    assert found.recorded["a/b"] + found.lost["a/b"] == 105
    assert path.stat().st_mode & 0o777 == 0o600
