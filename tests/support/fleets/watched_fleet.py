"""A dataflow with images, numbers, structs, text and log lines over three machines."""

from __future__ import annotations

from pathlib import Path

from support.workspace import Workspace

MACHINES = ("robot", "gpu", "station")

CAMERA = """
    from dora import Node

    WIDTH, HEIGHT = 160, 120
    node = Node()
    count = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        left = count * 3 % (WIDTH - 24)
        plain = bytes((40, 60 + count % 120, 140)) * WIDTH
        marked = bytearray(plain)
        marked[3 * left : 3 * (left + 24)] = bytes((250, 200, 60)) * 24
        image = b"".join(bytes(marked) if 48 <= y < 72 else plain for y in range(HEIGHT))
        metadata = {"encoding": "rgb8", "width": WIDTH, "height": HEIGHT, "frame": count}
        node.send_output("image", image, metadata)
        count += 1
"""

ARM = """
    import logging
    import math

    import pyarrow as pa

    from dora import Node

    node = Node()
    log = logging.getLogger("arm")
    count = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        angle = count / 20
        node.send_output("angle", pa.array([math.sin(angle), math.cos(angle)]))
        node.send_output("spectrum", pa.array([math.sin(angle + i / 6) for i in range(64)]))
        pose = {"x": math.sin(angle), "y": math.cos(angle), "frame": "base"}
        node.send_output("pose", pa.array([pose, pose | {"frame": "tool"}]))
        node.send_output("state", pa.array([f"moving {count}"]))
        if count % 20 == 0:
            log.info("step %d", count)
        if count % 60 == 30:
            log.warning("joint 3 is warm: %d degrees", 40 + count % 7)
        if count == 45:
            log.error("lost a marker <b>of the tool</b>")
            log.info("a long line: " + "0123456789" * 30)
        count += 1
"""

DETECTOR = """
    import time

    import pyarrow as pa

    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            time.sleep(0.06)  # slower than the camera: its queue drops
            left = event["metadata"]["frame"] * 3 % 136
            box = {"x": left, "y": 48, "w": 24, "h": 24, "confidence": 0.9, "label": "mark"}
            node.send_output("boxes", pa.array([box]), {"width": 160, "height": 120})
"""

SINK = """
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT" and event["id"] == "boxes":
            print("received", event["id"])
"""


def watched(workspace: Workspace, name: str = "dataflow.yml") -> Path:
    """Write the dataflow; its outputs can be inspected."""
    for script, source in (
        ("camera", CAMERA),
        ("arm", ARM),
        ("detector", DETECTOR),
        ("sink", SINK),
    ):
        workspace.node(script, source)
    robot, gpu, station = ({"machine": machine} for machine in MACHINES)

    def reads(source: str, size: int = 5) -> dict[str, object]:
        return {"source": source, "queue_size": size}

    nodes: list[dict[str, object]] = [
        {
            "id": "camera",
            "path": "camera.py",
            "deploy": robot,
            "inputs": {"tick": "dora/timer/millis/33"},
            "outputs": ["image"],
        },
        {
            "id": "arm",
            "path": "arm.py",
            "deploy": robot,
            "inputs": {"tick": "dora/timer/millis/50"},
            "outputs": ["angle", "spectrum", "pose", "state"],
        },
        {
            "id": "detector",
            "path": "detector.py",
            "deploy": gpu,
            "inputs": {"image": reads("camera/image", 1)},
            "outputs": ["boxes"],
        },
        {
            "id": "planner",
            "path": "sink.py",
            "deploy": station,
            "inputs": {"boxes": reads("detector/boxes"), "pose": reads("arm/pose")},
        },
        {
            "id": "recorder",
            "path": "sink.py",
            "deploy": station,
            "inputs": {"angle": reads("arm/angle")},
        },
    ]
    return workspace.dataflow({"debug": {"enable_debug_inspection": True}, "nodes": nodes}, name)
