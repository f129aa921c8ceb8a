"""Camera and detector in virtual time; after `dora build dataflow.yml`: `dora test`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dora_testing import Flow, from_function


def test_each_frame_is_searched_once(dora_flow: Callable[..., Flow], tmp_path: Path) -> None:
    out = dora_flow("dataflow.yml", env={"OUT_DIR": str(tmp_path)}).run()
    frames, found = out["camera/frame"], out["detector/faces"]
    assert len(frames) == len(found) == 120
    assert [one.metadata["frame"] for one in found] == list(range(120))
    assert all(len(one.value) == 1 for one in found)  # one person is in the film
    assert abs(frames.times[30] - frames[30].metadata["media_time"]) < 0.001


def test_no_face_in_noise(dora_flow: Callable[..., Flow], tmp_path: Path) -> None:
    random = np.random.default_rng(7)

    def noise(seconds: float) -> tuple[np.ndarray, dict[str, int | float]] | None:
        frame = round(seconds * 25)
        if frame >= 10:
            return None
        facts = {"frame": frame, "frames": 10, "width": 176, "height": 144, "media_time": seconds}
        return random.integers(0, 255, 176 * 144 * 3, np.uint8), facts

    camera = from_function(noise, every=0.04, output="frame")
    flow = dora_flow(
        "dataflow.yml",
        replace={"camera": camera},
        cost={"detector": "30ms"},
        env={"OUT_DIR": str(tmp_path)},
    )
    out = flow.run(until="1s", may_fail=["recorder"])  # it counts what the camera has sent
    assert out["detector/faces"].values == [[]] * 10
    assert out["detector/faces"].times[0] == 0.03
