"""A bridge over DDS, in a process of its own: a DDS domain lasts as long as its process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, cast

import psutil
from ros2.routers import Router
from ros2.test_bridge import TWIST, FakeNode
from support.waiting import wait_until

from dora_ros2 import transport
from dora_ros2.bridge import Bridge
from dora_ros2.connection import RosNode
from dora_ros2.transport import connect
from dora_ros2.zenoh import session as session_module

TIMED_OUT = -10
"""The code DDS_RETCODE_TIMEOUT."""


def test_topics_over_dds() -> None:
    tests = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(tests), "ROS_DOMAIN_ID": "78"}
    done = subprocess.run(
        [sys.executable, __file__], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def open_ports() -> list[int]:
    """Return the UDP ports of this process that receive from other computers."""
    found = []
    for one in psutil.Process().net_connections("udp4"):
        with socket.socket(fileno=os.dup(one.fd)) as held:
            device = held.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
        if one.laddr.ip != "127.0.0.1" and device != b"lo\0":
            found.append(one.laddr.port)
    return found


def exchange() -> None:
    """Send messages from one bridge to another, the last of them right before it ends."""
    common = {"transport": {"kind": "dds"}, "qos": {"reliable": True, "keep_last": 100}}
    ends = [
        (FakeNode(["a"]), {"topic": "/over_dds", "output": "a"}),
        (
            FakeNode([]),
            {
                "topic": "/over_dds",
                "message_type": "geometry_msgs/Twist",
                "direction": "publish",
                "input": "b",
            },
        ),
    ]
    threads = []
    for node, topic in ends:
        bridge = Bridge(cast(Any, node), {**common, "topics": [topic]})
        threads.append(threading.Thread(target=bridge.run))
        threads[-1].start()
        wait_until(lambda bridge=bridge: bridge._connection is not None)  # type: ignore[misc]
    receiver, sender = (node for node, _ in ends)

    def arrives() -> bool:
        sender.put("b", {"linear": {"x": -1.0}})
        return not receiver.sent.empty()

    wait_until(arrives, timeout=30)
    assert open_ports() == []
    for number in range(20):
        sender.put("b", {"linear": {"x": float(number)}})
    sender.events.put({"type": "STOP"})
    threads[1].join(20)
    numbers: list[float] = []
    while numbers[-1:] != [19.0]:
        numbers.append(receiver.get()[1]["linear"]["x"])
    assert numbers[-20:] == [float(number) for number in range(20)]
    receiver.events.put({"type": "STOP"})
    threads[0].join(20)
    assert not any(thread.is_alive() for thread in threads)


def close_beside_a_stuck_reader() -> None:
    """A reader that does not acknowledge delays the end of its publisher."""
    with connect("dds") as participant:
        publisher: Any = RosNode(participant, "robot").publisher("/stuck", TWIST)
        publisher._writer._wait_for_acks = lambda *_: TIMED_OUT
    assert participant.nodes == {}


def use_a_late_router() -> None:
    """A bridge that has DDS because no router answered uses one that starts later."""
    router = Router()
    vars(transport)["ROUTER"] = router.endpoint
    os.environ["ROS_DOMAIN_ID"] = "77"
    node = FakeNode(["a"])
    topic = {"topic": "/late", "message_type": "geometry_msgs/Twist", "output": "a"}
    bridge = Bridge(cast(Any, node), {"topics": [topic]})
    thread = threading.Thread(target=bridge.run)
    thread.start()
    said = f"waits for a Zenoh router at {router.endpoint}"
    wait_until(lambda: any(said in str(text) for text in node.waiting), timeout=20)
    session_module._DEFAULTS = {**session_module._DEFAULTS, "connect/endpoints": [router.endpoint]}
    router.start()
    with router.open(domain=77) as session:
        publisher = RosNode(session, "robot").publisher("/late", TWIST)

        def arrives() -> bool:
            publisher.publish(TWIST.encode({"linear": {"x": 2.0}}))
            return not node.sent.empty()

        wait_until(arrives, timeout=30)
        wait_until(lambda: node.waiting[-1] is None, timeout=20)
        node.events.put({"type": "STOP"})
        thread.join(20)
    router.stop()


if __name__ == "__main__":
    exchange()
    close_beside_a_stuck_reader()
    use_a_late_router()
