"""DORA_RUNTIME_TYPE_CHECK: what is sent against what the dataflow declares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dora_config.dataflow.types import structure
from dora_node_api.data.typecheck import OutputTypeCheck
from dora_node_api.errors import InvalidData, SetUpError

DECLARED = {
    "ratio": "std/core/v1/Float32",
    "word": "std/core/v1/String",
    "image": "std/media/v1/Image",
    "rgb": "std/media/v1/Image[encoding=rgb8]",
    "jpeg": "std/media/v1/CompressedImage",
    "twist": "std/control/v1/Twist",
    "joints": "std/control/v1/JointState",
    "boxes": "std/vision/v1/Detection",
    "raw": "std/core/v1/Bytes",
}
STRUCTURES = {
    output: found for output, name in DECLARED.items() if (found := structure(name)) is not None
}
VECTOR = {"x": 1.0, "y": 0.0, "z": 0.0}
SIZE = {"width": 2, "height": 1}
PICTURE = pa.struct(
    {"width": pa.uint32(), "height": pa.uint32(), "encoding": pa.string(), "data": pa.binary()}
)
PIXELS = {**SIZE, "encoding": "rgb8", "data": bytes(6)}


def check(monkeypatch: pytest.MonkeyPatch, setting: str) -> tuple[OutputTypeCheck, list[str]]:
    monkeypatch.setenv("DORA_RUNTIME_TYPE_CHECK", setting)
    warnings: list[str] = []
    made = OutputTypeCheck.from_environment(DECLARED, STRUCTURES, warnings.append)
    assert made is not None
    return made, warnings


@pytest.mark.parametrize(
    ("output", "data", "fits"),
    [
        ("ratio", pa.array([1.0], pa.float32()), True),
        ("ratio", np.zeros(2, np.float32), True),
        ("ratio", pa.array([1.0]), False),
        ("ratio", b"abcd", False),
        ("word", pa.array(["x"]), True),
        ("image", b"anything", False),
        ("image", pa.array([PIXELS], PICTURE), True),
        ("image", pa.array([PIXELS]), False),
        ("jpeg", b"anything", True),
        ("jpeg", pa.array([b"anything"]), True),
        ("jpeg", pa.array([1.0]), False),
        ("twist", b"anything", False),
        ("twist", pa.array([1.0] * 6), False),
        ("twist", pa.array([{"linear": VECTOR, "angular": VECTOR}]), True),
        ("twist", pa.array([{"linear": VECTOR}]), False),
        ("twist", pa.array([{"linear": VECTOR, "angular": {**VECTOR, "z": 1}}]), False),
        (
            "joints",
            pa.array([{"names": ["a"], "positions": [1.0], "velocities": [0.0], "efforts": [0.0]}]),
            True,
        ),
        ("boxes", pa.array([{"boxes": [1.0]}]), False),
        ("raw", pa.array([1.0]), True),
        ("untyped", b"anything", True),
    ],
)
def test_types(monkeypatch: pytest.MonkeyPatch, output: str, data: Any, fits: bool) -> None:
    made, warnings = check(monkeypatch, "warn")
    made.check(output, data, None)
    assert bool(warnings) is not fits
    strict, _ = check(monkeypatch, "error")
    if fits:
        strict.check(output, data, None)
    else:
        with pytest.raises(InvalidData, match="std/"):
            strict.check(output, data, None)
        strict.check(output, data, {"request_id": "r"})


def test_pictures_may_have_their_size_in_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    made, warnings = check(monkeypatch, "warn")
    pixels = np.zeros(6, np.uint8)
    made.check("image", pixels, {**SIZE, "encoding": "rgb8"})
    made.check("rgb", pixels, SIZE)
    assert warnings == []
    made.check("image", pixels, SIZE)
    made.check("twist", pixels, {"linear": 1, "angular": 1})
    assert len(warnings) == 2


def test_the_field_that_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made, warnings = check(monkeypatch, "warn")
    made.check("twist", pa.array([{"linear": VECTOR, "angular": {"x": 1.0, "y": 2}}]), None)
    assert warnings[0].endswith(
        "but the dataflow declares std/control/v1/Twist: the field `angular.y` is int64 instead of "
        "Float64"
    )


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for off in ("", "0", "off"):
        monkeypatch.setenv("DORA_RUNTIME_TYPE_CHECK", off)
        assert OutputTypeCheck.from_environment(DECLARED, STRUCTURES, print) is None
    with pytest.raises(SetUpError, match="maybe"):
        check(monkeypatch, "maybe")
