"""Writes what was detected to Parquet, draws it, and checks that no frame is missing."""

import os
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from drawing import draw_contact_sheet, draw_timeline

from dora import Node

PICTURES = 6


@dataclass
class Recording:
    """What has arrived: one row a face, one latency a frame, and the frames to be shown."""

    faces: list[dict[str, Any]] = field(default_factory=list)
    frames: list[dict[str, float]] = field(default_factory=list)
    pictures: dict[int, np.ndarray] = field(default_factory=dict)
    pictures_seen: int = 0
    sent: int | None = None
    in_file: int | None = None

    def add_frame(self, value: pa.Array, metadata: dict[str, Any]) -> None:
        self.pictures_seen += 1
        index, total = metadata["frame"], metadata["frames"]
        shown = {round(part * (total - 1) / (PICTURES - 1)) for part in range(PICTURES)}
        if index in shown:  # kept for later, so it is copied out of the shared memory
            shape = (metadata["height"], metadata["width"], 3)
            self.pictures[index] = value.to_numpy().reshape(shape).copy()

    def add_faces(self, value: pa.Array, metadata: dict[str, Any]) -> None:
        age = datetime.now(UTC) - metadata["timestamp"]
        frame = {
            "frame": metadata["frame"],
            "media_time": metadata["media_time"],
            "latency_ms": age.total_seconds() * 1e3,
            "detect_ms": metadata["detect_ms"],
        }
        self.frames.append(frame)
        self.faces.extend(frame | face for face in value.to_pylist())
        done, total = len(self.frames), metadata["frames"]
        if done % 20 == 0 or done == total:
            print(progress(done, total, self), flush=True)

    def add_end(self, value: pa.Array, metadata: dict[str, Any]) -> None:
        self.sent = value[0].as_py()
        self.in_file = metadata["in_file"]


def progress(done: int, total: int, recording: Recording) -> str:
    bar = "#" * (24 * done // total)
    line = f"[{bar:<24}] {done:>3}/{total}"
    if recording.faces and recording.faces[-1]["frame"] == recording.frames[-1]["frame"]:
        face = recording.faces[-1]
        line += f"  face at {face['x']:3.0f},{face['y']:3.0f} tilted {face['tilt']:+3.0f} degrees"
    else:
        line += "  no face"
    return line + f", {recording.frames[-1]['latency_ms']:.1f} ms behind the camera"


def summary(recording: Recording, written: list[Path]) -> str:
    latency = [frame["latency_ms"] for frame in recording.frames]
    with_face = len({face["frame"] for face in recording.faces})
    median, p99 = np.percentile(latency, [50, 99]) if latency else (0.0, 0.0)
    lines = [
        f"frames    {recording.in_file} in the file, {recording.sent} sent, "
        f"{recording.pictures_seen} seen, {len(recording.frames)} searched for faces",
        f"faces     {len(recording.faces)}, in {with_face} of {len(recording.frames)} frames",
        f"latency   {median:.1f} ms median, {p99:.1f} ms p99, camera to recorder",
        *(f"written   {path}" for path in written),
    ]
    return "\n".join(lines)


def write(recording: Recording, folder: Path) -> list[Path]:
    """Write the table and the two pictures into `folder`; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    table, sheet, timeline = (
        folder / name for name in ("detections.parquet", "faces.png", "timeline.png")
    )
    pq.write_table(pa.Table.from_pylist(recording.faces), table)
    draw_contact_sheet(recording.pictures, recording.faces, sheet)
    draw_timeline(recording.frames, recording.faces, timeline)
    return [table, sheet, timeline]


def main() -> None:
    node = Node()
    recording = Recording()
    add = {"frame": recording.add_frame, "faces": recording.add_faces, "end": recording.add_end}
    stopped = False
    for event in node:
        if event["type"] == "INPUT":
            add[event["id"]](event["value"], event["metadata"])
        stopped |= event["type"] == "STOP"
    written = write(recording, Path(os.environ.get("OUT_DIR", "out")))
    print(summary(recording, written), flush=True)
    counts = {recording.sent, recording.pictures_seen, len(recording.frames)}
    if not stopped and counts != {recording.in_file}:
        sys.exit("frames are missing, see the counts above")


if __name__ == "__main__":
    main()
