"""CPU time of ROS 2 messages, from a payload to Arrow and back, beside rosbags.

    uv run --with rosbags --with-editable packages/dora-ros2 python benchmarks/ros2_messages.py

Prints microseconds per message. rosbags makes Python objects with numpy arrays of a payload, not
Arrow; a ratio is ours divided by theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dora_ros2.types import Types

NUMBERS = [float(number) for number in range(12)]
HEADER = {"stamp": {"sec": 1, "nanosec": 2}, "frame_id": "base_link"}
MESSAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "Twist": ("geometry_msgs/msg/Twist", {"linear": {"x": 1.0}}),
    "JointState, 12 joints": (
        "sensor_msgs/msg/JointState",
        {
            "header": HEADER,
            "name": [f"joint_{index}" for index in range(12)],
            "position": NUMBERS,
            "velocity": NUMBERS,
            "effort": NUMBERS,
        },
    ),
    "LaserScan, 1080 ranges": ("sensor_msgs/msg/LaserScan", {"ranges": NUMBERS * 90}),
    "Path, 100 poses": ("nav_msgs/msg/Path", {"poses": [{"header": HEADER}] * 100}),
    "Image 1920x1080": (
        "sensor_msgs/msg/Image",
        {"header": HEADER, "encoding": "rgb8", "step": 5760, "data": bytes(5760 * 1080)},
    ),
}


def microseconds(work: Callable[[], object]) -> float:
    """Return the CPU time of one call: the best of some repetitions."""
    best = float("inf")
    for _ in range(7):
        calls = 0
        begin = time.process_time()
        while (spent := time.process_time() - begin) < 0.05:
            for _ in range(10):
                work()
            calls += 10
        best = min(best, spent / calls)
    return best * 1e6


def rosbags_store() -> Any:
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        return None
    return get_typestore(Stores.ROS2_KILTED)


def main() -> None:
    types = Types()
    store = rosbags_store()
    print(f"{'message':24} {'read':>8} {'write':>8} {'ratios to rosbags':>20}")
    for label, (name, value) in MESSAGES.items():
        message = types.message(name)
        payload = bytes(message.encode(value))
        array = message.decode(payload)
        read = microseconds(lambda m=message, p=payload: m.decode(p))  # type: ignore[misc]
        write = microseconds(lambda m=message, a=array: m.encode(a))  # type: ignore[misc]
        ratios = "rosbags is not installed"
        if store is not None:
            theirs = store.deserialize_cdr(payload, name)
            read_theirs = microseconds(lambda p=payload, n=name: store.deserialize_cdr(p, n))  # type: ignore[misc]
            write_theirs = microseconds(lambda t=theirs, n=name: store.serialize_cdr(t, n))  # type: ignore[misc]
            ratios = f"{read / read_theirs:.2f} {write / write_theirs:.2f}"
        print(f"{label:24} {read:8.1f} {write:8.1f} {ratios:>20}", flush=True)


if __name__ == "__main__":
    main()
