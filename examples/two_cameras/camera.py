"""A synthetic camera: a bright spot moves over a dark picture, left and right or up and down."""

import os
import time

import numpy as np
import pyarrow as pa

from dora import Node

WIDTH, HEIGHT = int(os.environ.get("WIDTH", "640")), int(os.environ.get("HEIGHT", "480"))
SIZE = HEIGHT // 12  # pixels, half the edge of the spot
ACROSS = os.environ["AXIS"] == "x"
PERIOD = 4.0  # seconds


def picture(seconds: float) -> np.ndarray:
    """Return what the camera sees at a time, height x width x 3 bytes."""
    place = 0.5 + 0.4 * np.sin(2 * np.pi * seconds / PERIOD)
    x, y = (place, 0.5) if ACROSS else (0.5, place)
    pixels = np.full((HEIGHT, WIDTH, 3), 40, dtype=np.uint8)
    column, row = int(x * WIDTH), int(y * HEIGHT)
    pixels[row - SIZE : row + SIZE, column - SIZE : column + SIZE] = 250
    return pixels


node = Node()
for event in node:
    if event["type"] == "INPUT":
        stamp = time.time_ns()  # of the exposure, before the picture is read out and sent
        pixels = picture(stamp / 1e9)
        metadata = {"width": WIDTH, "height": HEIGHT, "encoding": "rgb8", "stamp": stamp}
        node.send_output("image", pa.array(pixels.ravel()), metadata)
