"""Finds the face in each frame, tilted heads included, with a cascade that OpenCV ships."""

import time
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import pyarrow as pa

from dora import Node

CASCADE = "haarcascade_frontalface_alt2.xml"
TILTS = range(-40, 41, 10)  # degrees; a cascade finds upright faces only, so the frame is rotated
FACE = pa.struct(
    [
        ("x", pa.float32()),  # centre, pixels from the left
        ("y", pa.float32()),  # centre, pixels from the top
        ("size", pa.float32()),  # edge of the square, pixels
        ("tilt", pa.float32()),  # degrees clockwise, as seen in the picture
        ("score", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Face:
    """A square around a face, turned by `tilt` degrees about its centre."""

    x: float
    y: float
    size: float
    tilt: float
    score: float


class Detector:
    """Looks first at the tilt that the last face had, then further and further from it."""

    def __init__(self) -> None:
        self._cascade = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)
        self._last_tilt = 0

    def detect(self, frame: np.ndarray) -> list[Face]:
        grey = cv2.equalizeHist(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
        for tilt in sorted(TILTS, key=lambda tilt: abs(tilt - self._last_tilt)):
            if faces := self._detect_turned(grey, tilt):
                self._last_tilt = tilt
                return faces
        return []

    def _detect_turned(self, grey: np.ndarray, tilt: int) -> list[Face]:
        height, width = grey.shape
        # OpenCV counts counter-clockwise here: a head tilted clockwise is turned back upright.
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), tilt, 1.0)
        turned = cv2.warpAffine(grey, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        smallest = min(height, width) // 5
        boxes, _, scores = self._cascade.detectMultiScale3(
            turned, 1.1, 4, minSize=(smallest, smallest), outputRejectLevels=True
        )
        back = cv2.invertAffineTransform(turn)
        faces = []
        for (left, top, size, _), score in zip(boxes, scores, strict=True):
            x, y = back @ (left + size / 2, top + size / 2, 1.0)
            faces.append(Face(float(x), float(y), float(size), float(tilt), float(score)))
        return faces


def main() -> None:
    cv2.setNumThreads(1)
    detector = Detector()
    node = Node()
    for event in node:
        if event["type"] != "INPUT":
            continue
        metadata = event["metadata"]
        # A view of the camera's shared memory: nothing has been copied so far.
        frame = event["value"].to_numpy().reshape(metadata["height"], metadata["width"], 3)
        begun = time.perf_counter()
        faces = detector.detect(frame)
        metadata["detect_ms"] = (time.perf_counter() - begun) * 1e3
        # Forwarded metadata keeps the camera's timestamp: the recorder computes the latency.
        node.send_output("faces", pa.array([asdict(face) for face in faces], FACE), metadata)


if __name__ == "__main__":
    main()
