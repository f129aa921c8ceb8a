"""Draws the recorder's two pictures."""

from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

GREEN = (90, 220, 90)
YELLOW = (60, 210, 250)
TILE_WIDTH = 480  # pixels
COLUMNS = 3


def draw_contact_sheet(
    pictures: dict[int, np.ndarray], faces: list[dict[str, Any]], path: Path
) -> None:
    """Write the chosen frames side by side, each with its faces and the way they came."""
    tiles = [_draw_tile(picture, index, faces) for index, picture in sorted(pictures.items())]
    while tiles and len(tiles) % COLUMNS:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    if rows:
        cv2.imwrite(str(path), np.vstack(rows))


def _draw_tile(picture: np.ndarray, index: int, faces: list[dict[str, Any]]) -> np.ndarray:
    scale = TILE_WIDTH / picture.shape[1]
    tile: np.ndarray = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    way = [(face["x"] * scale, face["y"] * scale) for face in faces if face["frame"] <= index]
    if len(way) > 1:
        points = np.array(way, dtype=np.int32).reshape(-1, 1, 2)
        cv2.polylines(
            tile, [points], isClosed=False, color=YELLOW, thickness=1, lineType=cv2.LINE_AA
        )
    for face in (face for face in faces if face["frame"] == index):
        square = ((face["x"] * scale, face["y"] * scale), (face["size"] * scale,) * 2, face["tilt"])
        corners = cv2.boxPoints(square).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(
            tile, [corners], isClosed=True, color=GREEN, thickness=2, lineType=cv2.LINE_AA
        )
        label = f"frame {index}  tilt {face['tilt']:+.0f}"
        cv2.rectangle(tile, (0, 0), (12 * len(label), 30), (0, 0, 0), thickness=-1)
        cv2.putText(tile, label, (8, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.6, GREEN, 1, cv2.LINE_AA)
    return tile


def draw_timeline(frames: list[dict[str, float]], faces: list[dict[str, Any]], path: Path) -> None:
    """Write a plot of the face's place and tilt over the film, and of each frame's latency."""
    figure, (place, tilt, latency) = plt.subplots(
        3, 1, figsize=(9, 7.5), sharex=True, layout="constrained", height_ratios=[3, 2, 3]
    )
    time = [face["media_time"] for face in faces]
    place.plot(time, [face["x"] for face in faces], label="x, from the left", color="tab:blue")
    place.plot(time, [face["y"] for face in faces], label="y, from the top", color="tab:orange")
    place.plot(time, [face["size"] for face in faces], label="size", color="tab:grey", lw=1)
    place.set_ylabel("face, pixels")
    place.legend(loc="upper right", ncols=3, fontsize="small", frameon=False)
    found = len({face["frame"] for face in faces})
    place.set_title(f"A face in {found} of {len(frames)} frames", loc="left")

    tilt.step(time, [face["tilt"] for face in faces], where="mid", color="tab:green")
    tilt.set_ylabel("tilt, degrees")

    when = [frame["media_time"] for frame in frames]
    late = [frame["latency_ms"] for frame in frames]
    latency.plot(when, late, ".-", lw=0.7, ms=4, color="tab:red", label="camera to recorder")
    latency.plot(
        when,
        [frame["detect_ms"] for frame in frames],
        lw=1,
        color="black",
        label="of that, detecting",
    )
    if late:
        latency.axhline(float(np.median(late)), color="tab:red", lw=0.8, ls="--")
    latency.set_ylabel("latency, ms")
    latency.set_ylim(bottom=0)
    latency.set_xlabel("time in the film, seconds")
    latency.legend(loc="upper right", ncols=2, fontsize="small", frameon=False)
    for axes in (place, tilt, latency):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    place.margins(y=0.25)
    latency.set_ylim(top=1.25 * max(late, default=1.0))
    figure.savefig(path, dpi=110)
    plt.close(figure)
