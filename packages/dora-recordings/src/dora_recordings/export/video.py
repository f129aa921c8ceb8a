"""Encodes frames to MP4 files (needs PyAV and numpy)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from dora_node_api.data.visual_values import EncodedImage, Image
from dora_recordings.conversion import missing_extra

FORMATS = {
    "rgb8": "rgb24",
    "bgr8": "bgr24",
    "rgba8": "rgba",
    "bgra8": "bgra",
    "mono8": "gray",
    "mono16": "gray16le",
    "yuyv": "yuyv422",
}
"""Encodings of raw images and the names of ffmpeg."""
CODECS = {
    "h264": ("libx264", {"crf": "18", "g": "2", "bf": "0", "tune": "zerolatency"}),
    "av1": ("libsvtav1", {"crf": "30", "g": "2", "preset": "12"}),
}
"""Encoders and their options: each second frame is a key frame, so that single frames are read
quickly. AV1 with these options is the default of LeRobot."""


def require_video() -> None:
    """Raise CannotConvert if a library is not installed."""
    try:
        import av  # noqa: F401
        import numpy  # noqa: F401
    except ImportError as error:
        raise missing_extra("lerobot", error) from error


class ImageDecoder:
    """Decodes the images of one output to RGB."""

    def __init__(self) -> None:
        self._codecs: dict[str, Any] = {}

    def rgb(self, image: Image | EncodedImage) -> Any:
        """Return an array of height x width x 3 bytes. Raises ValueError."""
        import av
        import numpy as np

        if isinstance(image, Image):
            if image.encoding not in FORMATS:
                raise ValueError(f"images in {image.encoding} cannot be encoded as video")
            shape = (image.height, image.width, -1)
            dtype = np.uint16 if image.encoding == "mono16" else np.uint8
            pixels = np.frombuffer(image.data, dtype).reshape(shape)
            if image.encoding == "rgb8":
                return pixels
            if image.encoding in ("mono8", "mono16"):
                pixels = pixels[:, :, 0]
            frame = av.VideoFrame.from_ndarray(pixels, format=FORMATS[image.encoding])
        else:
            frame = self._decode(image)
        return frame.to_ndarray(format="rgb24")

    def _decode(self, image: EncodedImage) -> Any:
        import av

        name = "mjpeg" if image.format == "jpeg" else image.format
        try:
            if name not in self._codecs:
                self._codecs[name] = av.CodecContext.create(name, "r")
            frames = self._codecs[name].decode(av.Packet(image.data))
        except (av.FFmpegError, ValueError) as error:
            raise ValueError(f"not a {image.format} image: {error}") from error
        if not frames:
            raise ValueError(f"incomplete {image.format} image")
        return frames[0]


def pixel_format(width: int, height: int, codec: str) -> str:
    """Return 4:2:0 for even sizes, otherwise 4:4:4: H.264 requires even sizes for 4:2:0."""
    return "yuv444p" if codec == "h264" and (width % 2 or height % 2) else "yuv420p"


@contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """Restore ordinary scheduling of threads that the block has made real-time threads.

    As root, SVT-AV1 sets the highest real-time priority for the calling thread and its own threads,
    which would starve all other processes of the machine.
    """
    if sys.platform != "linux":
        yield
        return
    tasks = Path("/proc/self/task")
    before = {int(task.name): os.sched_getscheduler(int(task.name)) for task in tasks.iterdir()}
    try:
        yield
    finally:
        for task in tasks.iterdir():
            thread = int(task.name)
            with suppress(ProcessLookupError):
                if before.get(thread, os.SCHED_OTHER) != os.sched_getscheduler(thread):
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


class VideoFile:
    """One file with frames at multiples of 1 / ``fps``.

    LeRobot copies the packets of several files into one: their time bases must be equal.
    """

    def __init__(self, path: Path, width: int, height: int, codec: str, fps: int) -> None:
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        self._container: Any = av.open(str(path), "w")
        try:
            name, options = CODECS[codec]
            stream: Any = self._container.add_stream(name, rate=fps, options=options)
        except BaseException:
            self._container.close()
            raise
        stream.width, stream.height = width, height
        stream.pix_fmt = pixel_format(width, height, codec)
        stream.codec_context.time_base = stream.time_base = Fraction(1, fps)
        self._stream = stream
        self._fps = fps
        self._waiting: Any = None
        self._begun = False

    def add(self, rgb: Any, seconds: float) -> None:
        """Add a frame at a time since the beginning of the file."""
        import av

        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts = round(seconds * self._fps)
        frame.time_base = Fraction(1, self._fps)
        with ordinary_scheduling() if not self._begun else nullcontext():
            packets = self._stream.encode(frame)
        self._begun = True
        for packet in packets:
            self._mux(packet)

    def _mux(self, packet: Any) -> None:
        """Write the previous packet, because this one determines its duration."""
        if self._waiting is not None:
            self._waiting.duration = packet.pts - self._waiting.pts
            self._container.mux(self._waiting)
        self._waiting = packet

    def close(self, seconds: float) -> None:
        """Finish the file; ``seconds``: when its last frame ends."""
        for packet in self._stream.encode(None):
            self._mux(packet)
        if self._waiting is not None:
            end = round(seconds * self._fps)
            self._waiting.duration = max(1, end - self._waiting.pts)
            self._container.mux(self._waiting)
        self._container.close()

    def abandon(self) -> None:
        """Close the file, complete or not; its last bytes may not fit on the disk."""
        import av

        with suppress(av.FFmpegError, OSError):
            self._container.close()
