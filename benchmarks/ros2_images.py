"""CPU time of a `ros2:` node that receives images of 1920x1080 at 100 Hz.

    python benchmarks/ros2_images.py [--seconds 10] [--repeat 3]

A publisher in a process of its own sends through a Zenoh router of a third one, as a camera of ROS
does. Prints per cent of one core in the node, in a process that receives the same images in Zenoh
and does not read them, and what the same number of copies of an image needs.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

SIZE = 1920 * 1080 * 3
ROUTER = """
import json, sys, zenoh
config = zenoh.Config()
for path, value in {"mode": "router", "listen/endpoints": [sys.argv[1]], "connect/endpoints": [],
                    "scouting/multicast/enabled": False}.items():
    config.insert_json5(path, json.dumps(value))
session = zenoh.open(config)
print("ready", flush=True)
sys.stdin.read()
session.close()
"""
CAMERA = """
import time
from dora_ros2.types import Types
from dora_ros2.connection import RosNode
from dora_ros2.zenoh.session import ZenohSession

image = Types().message("sensor_msgs/Image")
payload = bytes(image.encode({"encoding": "rgb8", "step": 5760, "data": bytes(5760 * 1080)}))
with ZenohSession() as session:
    publisher = RosNode(session, "camera").publisher("/image", image)
    session.wait_for(lambda graph: graph.topics()["/image"].uses, 60)
    print("ready", flush=True)
    due = time.monotonic()
    while True:
        due += 0.01
        time.sleep(max(0.0, due - time.monotonic()))
        publisher.publish(payload)
"""
BARE = """
import sys
from dora_ros2.zenoh.endpoints import direct
from dora_ros2.zenoh.session import ZenohSession

with ZenohSession() as session:
    subscriber = session.raw.declare_subscriber("0/image/**", direct(lambda sample: None))
    print("ready", flush=True)
    sys.stdin.read()
"""
SINK = """
from dora import Node
node = Node()
count = 0
for event in node:
    if event["type"] == "INPUT":
        count += 1
        if count % 50 == 0:
            open("count", "w").write(str(count))
"""
FLOW = """
nodes:
  - id: bridge
    ros2: {topic: /image, message_type: sensor_msgs/Image, transport: {kind: zenoh}}
    outputs: [image]
  - id: sink
    path: sink.py
    inputs: {image: bridge/image}
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeat", type=int, default=3)
    parsed = parser.parse_args()
    runs = [measured(parsed.seconds) for _ in range(parsed.repeat)]
    share, bare, rate = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"{share:.1f} % of a core at {rate:.0f} Hz")
    print(f"Zenoh alone: {bare:.1f} %")
    print(f"one copy of each image: {copy_share(rate):.1f} %")


def measured(seconds: float) -> tuple[float, float, float]:
    """Return per cent of a core in the node and in Zenoh alone, and the rate of the images."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"tcp/127.0.0.1:{server.getsockname()[1]}"
    environment = {
        **os.environ,
        "ZENOH_CONFIG_OVERRIDE": f"connect/endpoints={json.dumps([endpoint])}",
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sink.py").write_text(SINK)
        (folder / "flow.yml").write_text(FLOW)
        started: list[subprocess.Popen[str]] = []

        def start(*words: str, output: int = subprocess.PIPE) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                words,
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            started.append(process)
            return process

        try:
            ready(start(sys.executable, "-c", ROUTER, endpoint))
            dora = str(Path(sys.executable).with_name("dora"))
            run = start(dora, "run", "flow.yml", output=subprocess.DEVNULL)
            bare = start(sys.executable, "-c", BARE)
            ready(bare)
            ready(start(sys.executable, "-c", CAMERA))
            time.sleep(2)
            bridge = next(
                one
                for one in psutil.Process(run.pid).children(recursive=True)
                if "dora_ros2" in one.cmdline()
            )
            processes = (bridge, psutil.Process(bare.pid))
            before, count, begin = (
                [spent(one) for one in processes],
                received(folder),
                time.monotonic(),
            )
            time.sleep(seconds)
            wall = time.monotonic() - begin
            shares = [
                100 * (spent(one) - first) / wall
                for one, first in zip(processes, before, strict=True)
            ]
            return shares[0], shares[1], (received(folder) - count) / wall
        finally:
            for process in reversed(started):
                process.terminate()
                process.communicate()


def spent(process: psutil.Process) -> float:
    """Return the seconds of processor time of a process."""
    times = process.cpu_times()
    return float(times.user + times.system)


def ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit("a process of the benchmark did not start")


def received(folder: Path) -> int:
    count = folder / "count"
    return int(count.read_text() or 0) if count.exists() else 0


def copy_share(rate: float) -> float:
    source, target = memoryview(bytes(SIZE)), memoryview(bytearray(SIZE))
    begin = time.process_time()
    for _ in range(100):
        target[:] = source
    return (time.process_time() - begin) * rate


if __name__ == "__main__":
    main()
