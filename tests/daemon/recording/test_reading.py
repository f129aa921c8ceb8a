"""Reading files: finished ones, and those that end anywhere."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from mcap.reader import make_reader

from dora_daemon.recording.arrow_messages import decode, encode, schema_of
from dora_daemon.recording.mcap_file import McapFile, clock_now, file_facts
from dora_daemon.recording.message import RecordedMessage
from dora_daemon.recording.reading import Recording, UnreadableRecording, merged
from dora_node_api.protocol.messages import RecordingSource

SOURCE = RecordingSource(
    name="flow",
    working_dir="/flow",
    machine_id="m1",
    outputs=("a/b", "c/d"),
    descriptor="nodes: []\n",
)


def sent(topic: str, number: int, at: int) -> RecordedMessage:
    array = pa.array([number] * 100)
    schema = schema_of(array)
    serialized = schema.serialize().to_pybytes()
    data = encode(array, f'{{"n":{number}}}'.encode(), schema, len(serialized))
    return RecordedMessage(topic, "int64", serialized, at, at + 1, number, data)


def write(path: Path, *, finish: bool = True) -> None:
    file = McapFile(path, SOURCE.descriptor, file_facts(SOURCE, "id", 0))
    file.add_clock(clock_now())
    for number in range(1, 51):
        file.add(sent("a/b", number, number * 10))
        file.add(sent("c/d", number, number * 10 - 5))
    if finish:
        file.add_clock(clock_now())
        file.finish({"a/b": 3})
    else:
        file._writer.flush()
        file.abandon()


def test_a_finished_file_is_read_in_the_order_of_time(tmp_path: Path) -> None:
    write(tmp_path / "r.mcap")
    recording = Recording(tmp_path / "r.mcap")
    assert recording.finished
    messages = list(recording.messages())
    assert [one.log_time for one in messages] == [5 * n for n in range(1, 101)]
    array, metadata = decode(messages[1].schema, messages[1].data)
    assert array.to_pylist() == [1] * 100
    assert metadata == b'{"n":1}'
    facts = recording.facts()
    assert facts.dataflow == "nodes: []\n"
    assert facts.source["machine"] == "m1"
    assert facts.lost == {"a/b": 3}
    assert len(facts.clocks) == 2
    some = recording.messages(["a/b"], start=100, end=130)
    assert [one.sequence for one in some] == [10, 11, 12]


def test_the_official_reader_opens_it(tmp_path: Path) -> None:
    write(tmp_path / "r.mcap")
    with (tmp_path / "r.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        assert {channel.topic for channel in summary.channels.values()} == {"a/b", "c/d"}
        assert {chunk.compression for chunk in summary.chunk_indexes} == {"zstd"}
        assert sum(1 for _ in reader.iter_messages()) == 100
        assert [one.name for one in reader.iter_attachments()] == ["dataflow.yml"]


def test_a_file_that_ends_anywhere_is_read_up_to_its_last_chunk(tmp_path: Path) -> None:
    write(tmp_path / "whole.mcap", finish=False)
    content = (tmp_path / "whole.mcap").read_bytes()
    whole = Recording(tmp_path / "whole.mcap")
    assert not whole.finished
    assert [one.log_time for one in whole.messages()] == [5 * n for n in range(1, 101)]
    cut = tmp_path / "cut.mcap"
    for size in range(8, len(content), 97):
        cut.write_bytes(content[:size])
        assert len(list(Recording(cut).messages())) in (0, 100)
    cut.write_bytes(content[:-1])
    assert Recording(cut).facts().dataflow == "nodes: []\n"


def test_files_of_one_recording_are_merged_by_time(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write(tmp_path / f"{name}.mcap")
    both = [Recording(tmp_path / f"{name}.mcap") for name in ("x", "y")]
    assert [one.log_time for one in merged(both, ["a/b"], end=30)] == [10, 10, 20, 20]


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UnreadableRecording, match="not an MCAP file"):
        Recording(tmp_path / "text")
