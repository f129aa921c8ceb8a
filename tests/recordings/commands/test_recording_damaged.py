"""Commands that read recordings, with damaged ones."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from recordings.export.recorded_messages import message
from support.command_line import Dora

from dora_config.protocol.recorders import RecordingPlan
from dora_config.protocol.recordings import (
    RecordedFile,
    RecordingDescribed,
    RecordingState,
)
from dora_recordings.arrow_messages import RecordedMessage
from dora_recordings.client.fetching import FetchedMachine, PartialFetch, merge_fetched
from dora_recordings.mcap_file import McapFile
from dora_recordings.reading import Recording

ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"
DATAFLOW = {
    "nodes": [
        {"id": "camera", "path": "camera.py", "outputs": ["image"]},
        {"id": "arm", "path": "arm.py", "outputs": ["joints"]},
    ]
}
PIXELS = np.arange(16 * 16 * 3).astype(np.uint8)
IMAGE = {"width": 16, "height": 16, "encoding": "rgb8", "primitive": "image"}


def messages() -> Iterator[RecordedMessage]:
    for number in range(1, 31):
        at = 10**9 + number * 100_000_000
        yield message("camera/image", PIXELS, IMAGE, at=at, sequence=number)
        yield message("arm/joints", [1.0 * number, 2.0], at=at + 1, sequence=number)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A recording of 60 messages in three chunks."""
    path = tmp_path / "r.mcap"
    facts = {"epoch_ns": "0", "boot_id": "b", "working_dir": str(tmp_path)}
    file = McapFile(path, yaml.safe_dump(DATAFLOW), facts)
    for number, one in enumerate(messages(), start=1):
        file.add(one)
        if number % 20 == 0:
            file._flush()
    file.finish({})
    return path


def damage_second_chunk(path: Path) -> str:
    """Return its place."""
    chunk = Recording(path)._chunks[1]
    content = bytearray(path.read_bytes())
    content[chunk.end - 10] ^= 0x10
    path.write_bytes(content)
    return f"bytes {chunk.begin} to {chunk.end}, 20 messages"


def test_other_accounts_cannot_read_exports(dora: Dora, recording: Path, tmp_path: Path) -> None:
    assert dora("recording", "export", recording, "-o", "tables").code == 0
    assert dora("recording", "export", recording, "--to", "foxglove", "-o", "f.mcap").code == 0
    private = [tmp_path / "tables", *(tmp_path / "tables").iterdir(), tmp_path / "f.mcap"]
    assert all(one.stat().st_mode & 0o077 == 0 for one in [*private, recording])


def test_what_is_damaged_is_named_and_left_out(dora: Dora, recording: Path) -> None:
    place = damage_second_chunk(recording)
    shown = dora("recording", "info", recording)
    assert shown.code == 1
    assert f"{recording} is damaged" in shown.err
    assert f"damaged: {place}\n" in shown.out
    assert '"messages": 20' in dora("recording", "info", recording, "-f", "json").out
    exported = dora("recording", "export", recording, "-o", "tables")
    assert exported.code == 1
    assert f"r.mcap is damaged: {place} left out" in exported.err
    assert "tables/arm_joints.parquet    20" in exported.out
    foxglove = dora("recording", "export", recording, "--to", "foxglove")
    assert foxglove.code == 1
    assert "camera/image  foxglove.RawImage  20        0" in foxglove.out


def test_an_export_names_an_unfinished_recording(dora: Dora, recording: Path) -> None:
    os.truncate(recording, Recording(recording)._chunks[2].begin + 50)
    exported = dora("recording", "export", recording, "-o", "tables")
    assert exported.code == 0
    assert "r.mcap is unfinished: the recorder was killed" in exported.err
    assert "tables/arm_joints.parquet    20" in exported.out


def test_a_damaged_recording_is_replayed_on_request(dora: Dora, recording: Path) -> None:
    place = damage_second_chunk(recording)
    refused = dora("replay", recording, "--output-yaml", "replay.yml")
    assert refused.code == 1
    assert f"r.mcap is damaged: {place}\nreplay the rest with --skip-damaged" in refused.err
    assert not Path("replay.yml").exists()
    done = dora("replay", recording, "--output-yaml", "replay.yml", "--skip-damaged")
    assert done.code == 0
    assert f"warning: {recording} is damaged: {place} skipped" in done.err


def test_no_content_leads_to_a_traceback(dora: Dora, recording: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("DORA_TESTS_SEED", random.randrange(1 << 32)))
    print(f"DORA_TESTS_SEED={seed}")
    chance = random.Random(seed)
    content = recording.read_bytes()
    lerobot = ("--to", "lerobot", "--state", "arm/joints", "-o", "dataset")
    commands = (
        ("recording", "info", recording),
        ("recording", "info", recording, "-f", "json"),
        ("recording", "export", recording, "-o", "tables"),
        ("recording", "export", recording, "--to", "foxglove", "-o", "foxglove.mcap"),
        ("recording", "export", recording, *lerobot),
        ("replay", recording, "--output-yaml", "replay.yml"),
        ("replay", recording, "--output-yaml", "replay.yml", "--skip-damaged"),
    )
    for _ in range(60):
        changed = bytearray(content)
        for at in chance.sample(range(len(content)), chance.choice((1, 1, 2, 10))):
            changed[at] ^= 1 << chance.randrange(8)
        if chance.random() < 0.3:
            del changed[chance.randrange(len(content)) :]
        recording.write_bytes(changed)
        for command in commands:
            done = dora(*command)
            assert done.code in (0, 1), (command, done)
            assert "unexpected error" not in done.err, (command, done)
            assert done.code == 0 or done.err, command
        for name in ("tables", "dataset"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        (tmp_path / "foxglove.mcap").unlink(missing_ok=True)
        merge_as_fetch(recording, tmp_path / "all.mcap")


def merge_as_fetch(path: Path, target: Path) -> None:
    files = (RecordedFile(name=path.name, size=path.stat().st_size),)
    state = RecordingState(
        recording=ID,
        dataflow_id="flow",
        phase="ended",
        files=files,
        recorded={"arm/joints": 30, "camera/image": 30},
    )
    described = RecordingDescribed(plan=RecordingPlan(recording=ID, dataflow_id="flow"))
    PartialFetch(target).create(ID)
    complete, intact = merge_fetched(
        [FetchedMachine("robot", path.parent, state, described)], target
    )
    merged = sum(1 for _ in Recording(target).messages())
    assert complete == (intact and merged == 60)
    target.unlink()
