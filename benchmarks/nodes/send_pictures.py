"""Sends pictures with noise at a steady rate; each has its number and the time of the send."""

import time

import numpy as np
import pyarrow as pa
from payload import setting, write_result, write_started

from dora import Node

FRAMES = 16  # different pictures, made before the start


def pictures(width: int, height: int) -> list[np.ndarray]:
    """Return pictures that move, with the noise of a sensor."""
    dice = np.random.default_rng(1)
    rows, columns = np.mgrid[0:height, 0:width]
    made = []
    for number in range(FRAMES):
        smooth = np.stack([(columns + 4 * number) // 3 % 256, rows // 2 % 256, rows % 256], -1)
        noise = dice.integers(-3, 4, smooth.shape)
        made.append((smooth + noise).clip(0, 255).astype(np.uint8).ravel())
    return made


def main() -> None:
    width, height, rate = int(setting("WIDTH")), int(setting("HEIGHT")), float(setting("RATE"))
    prepared = pictures(width, height)
    node = Node()
    begun, sent = time.monotonic(), 0
    while time.monotonic() - begun < float(setting("SECONDS")):
        time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
        metadata = {
            "width": width,
            "height": height,
            "encoding": "rgb8",
            "number": sent,
            "sent_ns": time.monotonic_ns(),
        }
        node.send_output("image", pa.array(prepared[sent % FRAMES]), metadata)
        sent += 1
        if sent == 10:
            write_started()
    write_result({"sent": sent})


if __name__ == "__main__":
    main()
