"""Reading files: finished ones, and those that end anywhere."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from mcap.reader import make_reader

from dora_node_api.protocol.messages import RecordingSource
from dora_recordings.arrow_messages import MessageEncoder, RecordedMessage, decode
from dora_recordings.mcap_file import McapFile, clock_now, file_facts
from dora_recordings.reading import Recording, UnreadableRecording, merged

SOURCE = RecordingSource(
    name="flow",
    working_dir="/flow",
    machine_id="m1",
    outputs=("a/b", "c/d"),
    descriptor="nodes: []\n",
)


def sent(topic: str, number: int, at: int) -> RecordedMessage:
    array = pa.array([number] * 100)
    metadata = f'{{"n":{number}}}'.encode()
    return MessageEncoder().message(topic, array, metadata, (at, at + 1), number)


def write(path: Path, *, finish: bool = True, chunks: int = 1) -> None:
    """Write 50 messages of two outputs each; ``chunks`` times, later and later."""
    file = McapFile(path, SOURCE.descriptor, file_facts(SOURCE, "id", 0))
    file.add_clock(clock_now())
    for number in range(1, 50 * chunks + 1):
        file.add(sent("a/b", number, number * 10))
        file.add(sent("c/d", number, number * 10 - 5))
        if number % 50 == 0:
            file._flush()
    if finish:
        file.add_clock(clock_now())
        file.finish({"a/b": 3})
    else:
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
    facts = recording.facts
    assert recording.damage == []
    assert facts.dataflow == {"nodes": []}
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
        names = [one.name for one in reader.iter_attachments()]
        assert names == ["dataflow.yml", "source.json", "clock.json", "clock.json", "lost.json"]


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
    assert Recording(cut).facts.dataflow == {"nodes": []}


def test_files_of_one_recording_are_merged_by_time(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write(tmp_path / f"{name}.mcap")
    both = [Recording(tmp_path / f"{name}.mcap") for name in ("x", "y")]
    assert [one.log_time for one in merged(both, ["a/b"], end=30)] == [10, 10, 20, 20]


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


def test_a_damaged_chunk_is_skipped_and_named(tmp_path: Path) -> None:
    path = tmp_path / "r.mcap"
    write(path, chunks=3)
    content = path.read_bytes()
    second = Recording(path)._chunks[1]
    path.write_bytes(flipped(content, second.end - 10))
    recording = Recording(path)
    assert [one.log_time for one in recording.messages()] == [
        *range(5, 501, 5),
        *range(1005, 1501, 5),
    ]
    (damage,) = recording.damage
    assert (damage.begin, damage.end, damage.messages) == (second.begin, second.end, 100)
    assert str(damage) == f"bytes {second.begin} to {second.end}, 100 messages"


def test_messages_whose_index_is_damaged_too_are_not_counted_as_intact(tmp_path: Path) -> None:
    path = tmp_path / "r.mcap"
    write(path, chunks=3)
    content = path.read_bytes()
    third = Recording(path)._chunks[2]
    # the end of the checksums before the chunk, the chunk, and the first of its two indexes
    begin, end = third.begin - 4, third.end + 20
    path.write_bytes(content[:begin] + bytes(end - begin) + content[end:])
    recording = Recording(path)
    assert len(list(recording.messages())) == 200
    (damage,) = recording.damage
    assert (damage.messages, damage.at_least) == (50, True)
    assert str(damage).endswith(", at least 50 messages")


def test_the_types_of_a_damaged_first_chunk_are_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "r.mcap"
    write(path, chunks=2)
    content = path.read_bytes()
    first, second = Recording(path)._chunks
    path.write_bytes(flipped(content, first.end - 10))
    assert len(list(Recording(path).messages())) == 100
    path.write_bytes(flipped(content, first.end - 10)[: second.end])  # without that end
    unfinished = Recording(path)
    assert list(unfinished.messages()) == []
    assert [one.messages for one in unfinished.damage] == [100, 100]


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_the_messages_before_the_damage_are_read(tmp_path: Path, place: float) -> None:
    """A chunk is compressed in blocks of 128 KiB."""
    path = tmp_path / "r.mcap"
    chance = random.Random(5)
    file = McapFile(path, SOURCE.descriptor, file_facts(SOURCE, "id", 0))
    for number in range(1, 101):
        array = pa.array(np.frombuffer(chance.randbytes(8000), np.uint8))
        times = number * 10, number * 10 + 1
        file.add(MessageEncoder().message("a/b", array, b"{}", times, number))
    file.finish({})
    sent_messages = list(Recording(path).messages())
    (chunk,) = Recording(path)._chunks
    damaged = chunk.begin + int(place * (chunk.end - chunk.begin))
    content = path.read_bytes()
    path.write_bytes(content[:damaged] + bytes(600) + content[damaged + 600 :])
    recording = Recording(path)
    found = list(recording.messages())
    assert found == [one for one in sent_messages if one in found]
    assert len(found) > 100 * place - 20
    (damage,) = recording.damage
    assert damage.messages == 100 - len(found) > 0


@pytest.mark.parametrize("finish", [True, False])
def test_no_damage_yields_a_wrong_message_or_goes_unseen(tmp_path: Path, finish: bool) -> None:
    seed = int(os.environ.get("DORA_TESTS_SEED", random.randrange(1 << 32)))
    print(f"DORA_TESTS_SEED={seed}")
    chance = random.Random(seed)
    write(tmp_path / "whole.mcap", finish=finish, chunks=3)
    content = (tmp_path / "whole.mcap").read_bytes()
    sent_messages = list(Recording(tmp_path / "whole.mcap").messages())
    path = tmp_path / "r.mcap"
    for _ in range(400):
        changed = bytearray(content)
        for at in chance.sample(range(len(content)), chance.choice((1, 1, 2, 10))):
            changed[at] ^= 1 << chance.randrange(8)
        if chance.random() < 0.2:  # a lost block of the disk
            at = chance.randrange(len(content))
            changed[at : at + 512] = bytes(len(changed[at : at + 512]))
        if chance.random() < 0.3:
            del changed[chance.randrange(len(content)) :]
        path.write_bytes(changed)
        try:
            recording = Recording(path)
        except UnreadableRecording:
            assert not changed.startswith(b"\x89MCAP0\r\n")
            continue
        found = list(recording.messages())
        places = {(one.topic, one.sequence) for one in found}
        assert found == [one for one in sent_messages if (one.topic, one.sequence) in places]
        if len(found) < len(sent_messages):
            cut = not recording.finished and found == sent_messages[: len(found)]
            assert recording.damage or cut


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UnreadableRecording, match="not an MCAP file"):
        Recording(tmp_path / "text")
