"""DORA_RUNTIME_TYPE_CHECK: what is sent against what the dataflow declares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dora_node_api.data.typecheck import TypeCheck
from dora_node_api.errors import InvalidData, SetUpError

DECLARED = {
    "ratio": "std/core/v1/Float32",
    "word": "std/core/v1/String",
    "image": "std/media/v1/Image",
}


def check(monkeypatch: pytest.MonkeyPatch, setting: str) -> tuple[TypeCheck, list[str]]:
    monkeypatch.setenv("DORA_RUNTIME_TYPE_CHECK", setting)
    warnings: list[str] = []
    made = TypeCheck.from_environment(DECLARED, warnings.append)
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
        ("image", b"anything", True),
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
        with pytest.raises(InvalidData, match="std/core/v1"):
            strict.check(output, data, None)
        strict.check(output, data, {"request_id": "r"})


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for off in ("", "0", "off"):
        monkeypatch.setenv("DORA_RUNTIME_TYPE_CHECK", off)
        assert TypeCheck.from_environment(DECLARED, print) is None
    with pytest.raises(SetUpError, match="maybe"):
        check(monkeypatch, "maybe")
