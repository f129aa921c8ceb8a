"""Export to Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recordings.export.recorded_messages import message

from dora_recordings.arrow_messages import RecordedMessage
from dora_recordings.conversion import CannotConvert
from dora_recordings.export.parquet import export

MESSAGES = [
    message(topic, [number] * 100, {"n": number}, at=number * 10, sequence=number)
    for number in range(1, 51)
    for topic in ("a/b", "c/d")
]


def test_export_writes_a_row_for_each_message(tmp_path: Path) -> None:
    written = export(MESSAGES, tmp_path / "out")
    assert {path.name: rows for path, rows in written.items()} == {
        "a_b.parquet": 50,
        "c_d.parquet": 50,
    }
    table = pq.read_table(tmp_path / "out" / "a_b.parquet")
    assert table["data"][4].as_py() == [5] * 100
    assert table["metadata"][4].as_py() == '{"n":5}'
    assert table["log_time"][4].value == 50
    assert table["sequence"].to_pylist() == list(range(1, 51))
    with pytest.raises(CannotConvert, match=r"a_b.parquet exists|c_d.parquet exists"):
        export(MESSAGES, tmp_path / "out")


def test_outputs_whose_names_differ_by_a_slash_have_files_of_their_own(tmp_path: Path) -> None:
    topics = ["camera/left_image", "camera_left/image", "camera/left_image-2", "camera_left/image"]
    sent = [message(topic, [index]) for index, topic in enumerate(topics)]
    assert {path.name: rows for path, rows in export(sent, tmp_path / "out").items()} == {
        "camera_left_image.parquet": 1,
        "camera_left_image-2.parquet": 2,
        "camera_left_image-2-2.parquet": 1,
    }


def test_failed_export_leaves_no_file(tmp_path: Path) -> None:
    broken = message("c/d", [1])
    broken = replace(broken, data=broken.data[:20])
    with pytest.raises(CannotConvert, match="output c/d: not an Arrow record batch"):
        export([*MESSAGES, broken], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(CannotConvert):
        export([*MESSAGES, broken], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_messages_of_ros_without_fields(tmp_path: Path) -> None:
    empty = pa.struct([])
    kind = pa.struct([("a", pa.int8()), ("e", empty), ("l", pa.list_(empty))])
    sent = [
        message("ros2/empty", pa.array([{}], empty)),
        message("ros2/nested", pa.array([{"a": 1, "e": {}, "l": [{}, {}]}], kind)),
    ]
    written = sorted(export(sent, tmp_path / "out"))
    nothing = {"empty": None}
    assert [pq.read_table(path)["data"][0].as_py() for path in written] == [
        [nothing],
        [{"a": 1, "e": nothing, "l": [nothing, nothing]}],
    ]


def test_export_that_cannot_rename_a_file_leaves_no_file(tmp_path: Path) -> None:
    occupied = tmp_path / "out" / "c_d.parquet"

    def then_occupied() -> Iterator[RecordedMessage]:
        yield from MESSAGES
        occupied.mkdir()

    with pytest.raises(IsADirectoryError):
        export(then_occupied(), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [occupied]
