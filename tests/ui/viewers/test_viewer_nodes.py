"""`dora-rerun` and `dora-foxglove` in real dataflows."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from foxglove_schemas_protobuf import RawImage_pb2
from support.dora import RunningDora, run_dora, running_dora
from support.fleets.coordinator import free_port
from support.runner.foxglove_client import FoxgloveClient
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = pytest.mark.integration

SENDER = """
    import sys
    import numpy as np
    import pyarrow as pa
    from dora import Node

    node = Node()
    count = int(sys.argv[1])
    for index in range(count):
        image = np.arange(index, index + 18).astype(np.uint8)
        size = {"width": 3, "height": 2, "encoding": "bgr8"}
        node.send_output("image", pa.array(image), {**size, "primitive": "image"})
        node.send_output("bad", pa.array(image), {"primitive": "image"})
        box = pa.array([0.0, 0.0, 4.0, 2.0 + index], pa.float32())
        node.send_output("boxes", box, {"primitive": "boxes2d", "format": "xyxy"})
        node.send_output("values", pa.array([index * 1.5, 2.0]), {"primitive": "series"})
        event = node.next(timeout=0.02)
        if event is None or event["type"] == "STOP":
            break
"""
# The library leaves sockets open in its process.
READER = """
import json, sys
from rerun.chunk import RrdReader

columns = {}
for chunk in RrdReader(sys.argv[1]).stream():
    batch = chunk.to_record_batch()
    for name in batch.schema.names:
        if ":" in name:
            rows = columns.setdefault(f"{chunk.entity_path} {name}", [])
            rows += batch.column(name).to_pylist()
print(json.dumps(columns, default=str))
"""
OUTPUTS = ["image", "bad", "boxes", "values"]
WARNING = "input `bad`: an image of 640 x 480 pixels in bgr8 has 921600 bytes, this one 18"


def flow(path: str, env: dict[str, Any], count: int) -> dict[str, Any]:
    inputs = {name: f"sender/{name}" for name in OUTPUTS}
    return {
        "nodes": [
            {"id": "sender", "path": "sender.py", "args": str(count), "outputs": OUTPUTS},
            {"id": "viewer", "path": path, "env": env, "inputs": inputs},
        ]
    }


def rerun_columns(file: Path) -> dict[str, list[Any]]:
    """Return the rows of each component of a file, as Rerun reads it."""
    done = subprocess.run(
        [sys.executable, "-c", READER, file], check=True, capture_output=True, text=True
    )
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


def test_a_file_of_rerun_has_equal_images_boxes_and_series(workspace: Workspace) -> None:
    workspace.node("sender", SENDER)
    content = flow("dora-rerun", {"OPERATING_MODE": "SAVE"}, 5)
    done = run_dora("run", workspace.dataflow(content), cwd=workspace.path).succeeded()
    assert done.output.count(WARNING) == 1
    (file,) = workspace.path.glob("out/*/archive-*.rrd")
    columns = rerun_columns(file)
    images = [bytes(row[0]) for row in columns["/image Image:buffer"]]
    assert images == [bytes(range(index, index + 18)) for index in range(5)]
    assert columns["/boxes Boxes2D:centers"] == [[[2.0, (2.0 + one) / 2]] for one in range(5)]
    assert columns["/boxes Boxes2D:half_sizes"] == [[[2.0, (2.0 + one) / 2]] for one in range(5)]
    assert columns["/values_0 Scalars:scalars"] == [[one * 1.5] for one in range(5)]
    assert columns["/values_1 Scalars:scalars"] == [[2.0]] * 5


def test_a_script_of_the_replaced_package_starts_the_node(workspace: Workspace) -> None:
    workspace.node("sender", SENDER)
    # What pip installs for `dora-rerun`: a script, and a module compiled against dora-rs.
    workspace.file("hub/dora_rerun.py", "raise ImportError('compiled against dora-rs')")
    # Its first line as of pip, where the path of the interpreter has a space.
    begin = f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n"
    script = f"{begin}from dora_rerun import py_main\npy_main()\n"
    workspace.file("dora-rerun", script).chmod(0o755)
    site = str(workspace.path / "hub")
    content = flow("dora-rerun", {"OPERATING_MODE": "SHOW", "PYTHONPATH": site}, 1)
    done = run_dora("run", workspace.dataflow(content), cwd=workspace.path).exited(1)
    assert 'OPERATING_MODE is "SHOW"; expected one of SPAWN, CONNECT, SAVE' in done.output


def test_clients_of_foxglove_come_and_go(workspace: Workspace) -> None:
    workspace.node("sender", SENDER)
    file = workspace.dataflow(flow("dora-foxglove", {"FOXGLOVE_PORT": 0}, 10_000))
    with running_dora("run", file, cwd=workspace.path) as running:
        for _ in range(2):
            with FoxgloveClient(running) as client:
                found = client.receive({"/sender/image": 3, "/sender/boxes": 1})
            assert client.schemas["/sender/values"] == "dora.Numbers"
            for message in found["/sender/image"]:
                image = RawImage_pb2.RawImage.FromString(message)
                assert (image.width, image.height, image.encoding) == (3, 2, "bgr8")
                assert len(image.data) == 18
        running.interrupt()
        done = running.wait().succeeded()
    assert done.output.count(WARNING) == 1


def test_a_viewer_of_rerun_that_closes_and_returns(workspace: Workspace) -> None:
    workspace.node("sender", SENDER)
    port = free_port()
    settings = {"OPERATING_MODE": "CONNECT", "RERUN_SERVER_ADDR": f"127.0.0.1:{port}"}
    file = workspace.dataflow(flow("dora-rerun", settings, 10_000))
    package = find_spec("rerun_cli")
    assert package is not None
    assert package.origin is not None
    server = [str(Path(package.origin).with_name("rerun")), "--serve-grpc", "--port", str(port)]
    with running_dora("run", file, cwd=workspace.path) as running:
        running.wait_for("no Rerun viewer listens at")
        for number in (1, 2):
            with subprocess.Popen(server, stderr=subprocess.DEVNULL) as viewer:
                wait_for_count(running, "connected to the Rerun viewer", number)
                viewer.kill()
            wait_for_count(running, "the Rerun viewer closed the connection", number)
        running.interrupt()
        running.wait().succeeded()


def wait_for_count(running: RunningDora, text: str, count: int) -> None:
    wait_until(lambda: running.stdout.count(text) == count, what=lambda: running.stdout)
