"""Export to Foxglove's schemas: other tools read the same values that were sent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from mcap.reader import make_reader
from recordings.export.recorded_messages import message

from dora_node_api.data.visual_kinds import output_types
from dora_recordings.arrow_messages import RecordedMessage
from dora_recordings.conversion import CannotConvert
from dora_recordings.export.foxglove import UNDECODABLE, FoxgloveExport
from dora_recordings.export.visuals import VisualDecoder

DATAFLOW = """
nodes:
  - id: arm
    path: arm.py
    outputs: [pose]
    output_types: {pose: std/math/v1/Pose}
  - id: runtime
    operators:
      - {id: op, python: op.py, outputs: [o], output_types: {o: std/core/v1/String}}
"""
PIXELS = np.arange(2 * 4 * 3, dtype=np.uint8)
IMAGE = {"width": 4, "height": 2, "encoding": "bgr8", "primitive": "image", "frame_id": "front"}


def exported(
    path: Path, messages: Iterable[RecordedMessage], dataflow: str | None = None
) -> FoxgloveExport:
    export = FoxgloveExport(path, VisualDecoder(yaml.safe_load(dataflow or "{}")))
    export.write(messages)
    return export


def decoded(path: Path) -> list[tuple[str, str, Any]]:
    """Return topic, schema and message, which are decoded only with what is in the file."""
    found = []
    with path.open("rb") as file:
        for schema, channel, one in make_reader(file, validate_crcs=True).iter_messages():
            assert schema is not None
            if channel.message_encoding == "json":
                found.append((channel.topic, schema.name, json.loads(one.data)))
                continue
            pool = descriptor_pool.DescriptorPool()
            for part in descriptor_pb2.FileDescriptorSet.FromString(schema.data).file:
                pool.Add(part)
            kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
            found.append((channel.topic, schema.name, kind.FromString(one.data)))
    return found


def test_images_have_the_bytes_that_were_sent(tmp_path: Path) -> None:
    path = tmp_path / "f.mcap"
    exported(path, [message("camera/image", PIXELS, IMAGE, at=5_000_000_007)])
    ((topic, schema, image),) = decoded(path)
    assert (topic, schema) == ("/camera/image", "foxglove.RawImage")
    assert image.data == PIXELS.tobytes()
    assert (image.width, image.height, image.step, image.encoding) == (4, 2, 12, "bgr8")
    assert (image.timestamp.seconds, image.timestamp.nanos, image.frame_id) == (5, 7, "front")


def test_types_of_the_dataflow_choose_the_schema(tmp_path: Path) -> None:
    pose = {
        "position": {"x": 1.0, "y": 2.0, "z": 3.0},
        "orientation": {"x": 0.0, "y": 0.0, "z": 0.0, "w": 1.0},
    }
    path = tmp_path / "f.mcap"
    exported(path, [message("arm/pose", [pose])], DATAFLOW)
    ((_, schema, found),) = decoded(path)
    assert schema == "foxglove.PoseInFrame"
    assert (found.pose.position.z, found.pose.orientation.w, found.frame_id) == (3.0, 1.0, "world")
    assert output_types(yaml.safe_load(DATAFLOW)) == {
        "arm/pose": "std/math/v1/Pose",
        "runtime/op/o": "std/core/v1/String",
    }


def test_messages_without_a_display_are_json_and_outputs_may_change(tmp_path: Path) -> None:
    path = tmp_path / "f.mcap"
    struct = pa.array([{"a": 1, "b": float("nan")}])
    export = exported(path, [message("n/o", [1.5]), message("n/o", struct, {"k": "v"}, at=1)])
    numbers, other = decoded(path)
    assert numbers[:2] == ("/n/o", "dora.Numbers")
    assert numbers[2]["values"] == [1.5]
    content = {"data": [{"a": 1, "b": None}], "metadata": {"k": "v"}}
    assert other == ("/n/o/Message", "dora.Message", content)
    assert [(one.type, one.messages) for one in export.outputs.values()] == [
        ("dora.Numbers", 1),
        ("dora.Message", 1),
    ]


def test_messages_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    short = message("camera/image", PIXELS[:-1], IMAGE)
    export = exported(tmp_path / "f.mcap", [short, short])
    (counts,) = export.outputs.values()
    assert (counts.messages, counts.refused) == (0, 2)
    assert counts.reason == "an image of 4 x 2 pixels in bgr8 has 24 bytes, this one 23"


def test_undecodable_messages_are_counted_apart(tmp_path: Path) -> None:
    whole = message("n/o", pa.array([{"a": 1}]))
    broken = replace(whole, data=whole.data[:20])
    export = exported(tmp_path / "f.mcap", [whole, broken])
    assert [(one.type, one.messages, one.refused) for one in export.outputs.values()] == [
        ("dora.Message", 1, 0),
        (UNDECODABLE, 0, 1),
    ]


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "f.mcap").touch()
    with pytest.raises(CannotConvert, match="exists"):
        exported(tmp_path / "f.mcap", [])


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foxglove_schemas_protobuf", None)
    with pytest.raises(CannotConvert, match=r"pip install '?foxglove-schemas-protobuf>=0\.3'?"):
        exported(tmp_path / "f.mcap", [])
    assert list(tmp_path.iterdir()) == []
