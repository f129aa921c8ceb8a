"""Files of several machines become one."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from dora_config.protocol.recorders import RecordingPlan
from dora_config.protocol.recordings import ClockSample
from dora_recordings.arrow_messages import (
    NOTES_KEY,
    OWN_TIMES_KEY,
    MessageEncoder,
    RecordedMessage,
    decode,
    decode_all,
)
from dora_recordings.conversion import CannotConvert
from dora_recordings.mcap_file import McapFile
from dora_recordings.merging import BUCKET_NS, ClockCorrection, MachineFiles, merge
from dora_recordings.reading import Recording

PLAN = RecordingPlan(
    recording="01a20e4b-f5a3-4858-99fe-d510d04b9561",
    dataflow_id="flow",
    name="patrol",
    dataflow="nodes: [{id: camera}, {id: arm}]\n",
    working_dir="/flow",
)
EPOCH = 5_000_000
"""Clock of a machine at zero of its monotonic clock."""


def message(
    topic: str, number: int, monotonic: int, metadata: bytes = b"{}", notes: bytes = b""
) -> RecordedMessage:
    times = EPOCH + monotonic, EPOCH + monotonic + 7
    return MessageEncoder().message(topic, pa.array([number]), metadata, times, number, notes)


def write(path: Path, topic: str, times: Sequence[int], *, first: int = 1) -> Path:
    file = McapFile(path, "nodes: [{id: camera}]\n", {"epoch_ns": str(EPOCH), "boot_id": "b"})
    for number, time in enumerate(times, start=first):
        file.add(message(topic, number, time))
    file.finish({})
    return path


def clock(offset: int) -> tuple[ClockSample, ...]:
    """A machine that started ``offset`` nanoseconds after zero of the coordinator's clock."""
    one = ClockSample(boot_id="b", monotonic_ns=0, coordinator_ns=offset, round_trip_ns=20)
    return (one,)


def test_messages_are_ordered_by_corrected_time(tmp_path: Path) -> None:
    robot = write(tmp_path / "robot-0.mcap", "arm/pose", [0, 100, 200])
    station = write(tmp_path / "station-0.mcap", "camera/image", [10_050, 10_150])
    parts = [
        MachineFiles("robot", (robot,), clock(1000)),
        MachineFiles("station", (station,), clock(-9000)),
    ]
    target = tmp_path / "all.mcap"
    merged = merge(parts, PLAN, {"arm/pose": 4}, target)
    assert merged.recorded == {"arm/pose": 3, "camera/image": 2}
    assert merged.uncorrected == ()
    recording = Recording(target)
    assert [(one.topic, one.log_time) for one in recording.messages()] == [
        ("arm/pose", 1000),
        ("camera/image", 1050),
        ("arm/pose", 1100),
        ("camera/image", 1150),
        ("arm/pose", 1200),
    ]
    assert [one.publish_time - one.log_time for one in recording.messages()] == [7] * 5
    facts = recording.facts
    assert facts.dataflow == {"nodes": [{"id": "camera"}, {"id": "arm"}]}
    assert facts.lost == {"arm/pose": 4}
    assert facts.source["working_dir"] == "/flow"
    offsets = {one["machine"]: int(one["first_offset_ns"]) for one in facts.clocks}
    assert offsets == {"robot": EPOCH - 1000, "station": EPOCH + 9000}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_times_of_captures_are_corrected_as_those_of_sends(tmp_path: Path) -> None:
    """By the clock of the machine they would be at another time than the message."""
    path = tmp_path / "robot-0.mcap"
    file = McapFile(path, "nodes: []\n", {"epoch_ns": str(EPOCH), "boot_id": "b"})
    stamp = b'{"frame":7,"stamp":%d}' % (EPOCH + 90)
    file.add(message("camera/image", 1, 100, stamp))
    file.add(message("camera/image", 2, 200, b'{"frame":8}'))
    file.finish({})
    merge([MachineFiles("robot", (path,), clock(1000))], PLAN, {}, tmp_path / "all.mcap")
    found = Recording(tmp_path / "all.mcap").messages()
    read = [(one.log_time, *decode(one.schema, one.data)) for one in found]
    assert [(time, value.to_pylist(), metadata) for time, value, metadata in read] == [
        (1100, [1], b'{"frame":7,"stamp":1090}'),
        (1200, [2], b'{"frame":8}'),
    ]


def test_times_before_the_correction_are_kept_for_notes_of_events(tmp_path: Path) -> None:
    """Notes name messages by them, and a node passes on the `stamp` that it received."""
    path = tmp_path / "robot-0.mcap"
    file = McapFile(path, "nodes: []\n", {"epoch_ns": str(EPOCH), "boot_id": "b"})
    file.add(message("camera/image", 1, 100, b'{"stamp":5000090}'))
    file.add(message("camera/image", 2, 200))
    file.add(message("camera/image", 3, 300, notes=b'[0,["START",0]]'))
    file.add(message("camera/image", 4, 400))
    file.finish({})
    merge([MachineFiles("robot", (path,), clock(1000))], PLAN, {}, tmp_path / "all.mcap")
    found = [decode_all(m.schema, m.data)[1] for m in Recording(tmp_path / "all.mcap").messages()]
    assert [one.get(OWN_TIMES_KEY) for one in found] == [
        b'{"publish_time":%d,"stamp":5000090}' % (EPOCH + 107),
        None,  # no notes until here: not copied
        b'{"publish_time":%d}' % (EPOCH + 307),
        b'{"publish_time":%d}' % (EPOCH + 407),
    ]
    assert found[2][NOTES_KEY] == b'[0,["START",0]]'


def test_files_of_one_machine_follow_each_other_by_number(tmp_path: Path) -> None:
    names = ("robot-0_2", "robot-0_10", "robot-1")
    files = [
        write(tmp_path / f"{name}.mcap", "arm/pose", [index * 10], first=index)
        for index, name in enumerate(names)
    ]
    parts = [MachineFiles("robot", tuple(reversed(files)), clock(0))]
    merge(parts, PLAN, {}, tmp_path / "all.mcap")
    found = Recording(tmp_path / "all.mcap").messages()
    assert [decode(one.schema, one.data)[0].to_pylist() for one in found] == [[0], [1], [2]]


def test_the_file_of_a_killed_recorder_is_merged(tmp_path: Path) -> None:
    whole = write(tmp_path / "robot-0.mcap", "arm/pose", range(0, 1000, 10))
    cut = tmp_path / "robot-1.mcap"
    cut.write_bytes(whole.read_bytes()[:-200])
    merged = merge([MachineFiles("robot", (cut,), clock(0))], PLAN, {}, tmp_path / "all.mcap")
    assert merged.recorded == {"arm/pose": 100}


def test_without_samples_times_are_those_of_the_machine(tmp_path: Path) -> None:
    file = write(tmp_path / "robot-0.mcap", "arm/pose", [3])
    merged = merge([MachineFiles("robot", (file,))], PLAN, {}, tmp_path / "all.mcap")
    assert merged.uncorrected == ("robot",)
    (one,) = Recording(tmp_path / "all.mcap").messages()
    assert one.log_time == EPOCH + 3


def test_nothing_is_overwritten_and_an_interrupted_merge_is_repeated(tmp_path: Path) -> None:
    file = write(tmp_path / "robot-0.mcap", "arm/pose", [3])
    target = tmp_path / "all.mcap"
    (tmp_path / ".all.mcap.new").write_bytes(b"of a killed process")
    parts = [MachineFiles("robot", (file,), clock(0))]
    merge(parts, PLAN, {}, target)
    with pytest.raises(CannotConvert, match="exists; choose another file"):
        merge(parts, PLAN, {}, target)


def test_what_is_damaged_is_left_out_and_named(tmp_path: Path) -> None:
    files = [tmp_path / f"robot-{number}.mcap" for number in range(4)]
    file = McapFile(files[0], "nodes: []\n", {"epoch_ns": "1.5"})
    file.finish({})
    files[1].write_bytes(b"no recording")
    write(files[2], "arm/pose", [1])
    (chunk,) = Recording(files[2])._chunks
    content = bytearray(files[2].read_bytes())
    content[chunk.end - 1] ^= 1
    files[2].write_bytes(content)
    write(files[3], "arm/pose", [2])
    merged = merge([MachineFiles("robot", tuple(files))], PLAN, {}, tmp_path / "all.mcap")
    assert merged.recorded == {"arm/pose": 1}
    assert merged.damage == (
        "robot: robot-0.mcap: epoch_ns is not an integer",
        "robot: robot-1.mcap is not an MCAP file",
        f"robot: robot-2.mcap is damaged: bytes {chunk.begin} to {chunk.end}, 1 message",
    )


def test_the_merged_file_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The originals may be removed after the merge."""
    file = write(tmp_path / "robot-0.mcap", "arm/pose", [3])
    target = tmp_path / "all.mcap"
    synced: list[tuple[bool, int | None]] = []

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        is_folder = stat.S_ISDIR(found.st_mode)
        assert target.exists() == is_folder
        synced.append((is_folder, None if is_folder else found.st_size))

    monkeypatch.setattr("os.fsync", fsync)
    merge([MachineFiles("robot", (file,), clock(0))], PLAN, {}, target)
    assert synced == [(False, target.stat().st_size), (True, None)]


MINUTE = BUCKET_NS


def sample(monotonic: int, coordinator: int, trip: int = 1000, boot: str = "b") -> ClockSample:
    return ClockSample(
        boot_id=boot, monotonic_ns=monotonic, coordinator_ns=coordinator, round_trip_ns=trip
    )


def test_times_between_samples_follow_the_drift() -> None:
    clock = ClockCorrection([sample(0, 1000), sample(2 * MINUTE, 1000 + 2 * MINUTE + 600)], "b")
    assert clock.coordinator_ns(MINUTE) == 1000 + MINUTE + 300
    assert clock.coordinator_ns(-50) == 950
    assert clock.coordinator_ns(2 * MINUTE + 50) == 1000 + 2 * MINUTE + 650


def test_of_samples_close_together_the_shortest_round_trip_counts() -> None:
    clock = ClockCorrection([sample(0, 7000, 9000), sample(100, 1100, 200)], "b")
    assert clock.coordinator_ns(500) == 1500
    assert clock.round_trip_ns == 200


def test_samples_of_another_boot_are_ignored() -> None:
    assert not ClockCorrection([sample(0, 5, boot="earlier")], "b")
    assert ClockCorrection([], "b").round_trip_ns is None


@given(
    st.lists(st.tuples(st.integers(0, 10**13), st.integers(0, 10**13)), min_size=1),
    st.lists(st.integers(0, 10**13), min_size=2),
)
def test_the_order_of_times_is_kept(samples: list[tuple[int, int]], times: list[int]) -> None:
    """Also after restarts of a coordinator whose clock was changed."""
    clock = ClockCorrection([sample(*one) for one in samples], "b")
    corrected = [clock.coordinator_ns(time) for time in sorted(times)]
    assert corrected == sorted(corrected)


@pytest.mark.parametrize("offset", [-(10**18), 0, 10**18])
def test_one_sample_is_an_offset(offset: int) -> None:
    clock = ClockCorrection([sample(10, 10 + offset)], "b")
    assert clock.coordinator_ns(10**15) == 10**15 + offset
