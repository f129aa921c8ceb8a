"""H.264 with PyAV: each picture refers to the one before it, except key frames.

The sender encodes a key frame at least once a second.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from av.video.frame import PictureType

from dora_daemon.link.codecs.coded import PIXEL_BYTES, NotDecoded, Shape

_FORMATS: Final = {"rgb8": "rgb24", "bgr8": "bgr24", "mono8": "gray"}
_WORST: Final = 51
"""CRF of the lowest quality."""
_THREADS: Final = 1
"""Each further thread would delay the decoder by one picture."""


class H264Encoder:
    """Encodes pictures of one size. A new one begins with a key frame."""

    def __init__(self, shape: Shape, quality: int) -> None:
        self.shape = shape
        self._count = 0
        context: Any = av.CodecContext.create("libx264", "w")
        context.width, context.height = shape.width, shape.height
        even = shape.width % 2 == shape.height % 2 == 0
        context.pix_fmt = self._format = "yuv420p" if even else "yuv444p"
        context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
        context.gop_size = 1 << 20
        context.max_b_frames = 0
        context.thread_count = _THREADS
        crf = round(_WORST * (100 - quality) / 100)
        context.options = {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "crf": str(crf),
            "forced-idr": "1",
        }
        self._context = context

    def encode(self, pixels: memoryview, *, key: bool) -> bytes:
        """Return the packets of a picture."""
        frame = _frame_of(self.shape, pixels).reformat(format=self._format)
        frame.pts = self._count
        frame.pict_type = PictureType.I if key else PictureType.NONE
        self._count += 1
        return b"".join(bytes(packet) for packet in self._context.encode(frame))


def _frame_of(shape: Shape, pixels: memoryview) -> av.VideoFrame:
    channels = PIXEL_BYTES[shape.encoding]
    form = (shape.height, shape.width, channels) if channels > 1 else (shape.height, shape.width)
    array = np.frombuffer(pixels, np.uint8).reshape(form)
    return av.VideoFrame.from_ndarray(array, format=_FORMATS[shape.encoding])


class H264Decoder:
    """Decodes what one encoder made, from a key frame on."""

    def __init__(self) -> None:
        context: Any = av.CodecContext.create("h264", "r")
        context.thread_count = _THREADS
        context.options = {"err_detect": "explode", "flags": "low_delay"}
        self._context = context

    def decode(self, shape: Shape, coded: memoryview, target: memoryview) -> None:
        """Fill the target with the picture. Raises NotDecoded; then begin with a new decoder."""
        try:
            frames = self._context.decode(av.Packet(bytes(coded)))
        except (av.FFmpegError, ValueError) as error:
            raise NotDecoded(f"h264: {error}") from error
        if len(frames) != 1 or frames[0].is_corrupt:
            raise NotDecoded(f"h264: {len(frames)} pictures, or a damaged one")
        frame = frames[0]
        if (frame.width, frame.height) != (shape.width, shape.height):
            raise NotDecoded(f"the h264 picture has {frame.width} x {frame.height} pixels")
        made = frame.to_ndarray(format=_FORMATS[shape.encoding])
        np.frombuffer(target, np.uint8)[:] = made.reshape(-1)
