"""A node of rclpy that sends back what it receives; runs in an environment that has ROS wheels.

``rclpy_echo.py TYPE...`` subscribes to ``ping_0``, ``ping_1``, ... of these types and publishes to
``pong_0``, ... ``latched`` is a topic with one transient local message, ``heard`` repeats the
transient local messages of ``told``, ``picky`` is a best-effort publisher. Ends with its standard
input.
"""

from __future__ import annotations

import importlib
import sys
import threading
from contextlib import suppress
from functools import partial

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("echo", namespace="/oracle")
    for number, name in enumerate(sys.argv[1:]):
        package, _, last = name.split("/")
        cls = getattr(importlib.import_module(f"{package}.msg"), last)
        publisher = node.create_publisher(cls, f"/pong_{number}", 10)
        node.create_subscription(cls, f"/ping_{number}", publisher.publish, 10)
    latching = QoSProfile(depth=3, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_publisher(String, "/latched", latching).publish(String(data="from before"))
    heard = node.create_publisher(String, "/heard", 10)
    # created late, by a message, so that what was published before is history
    late = partial(node.create_subscription, String, "/told", heard.publish, latching)
    node.create_subscription(String, "/listen", lambda _: late(), 10)
    picky = node.create_publisher(
        String, "/picky", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    node.create_timer(0.1, lambda: picky.publish(String(data="x")))
    names = node.create_publisher(String, "/names", latching)
    node.create_timer(
        0.1, lambda: names.publish(String(data=" ".join(sorted(node.get_node_names()))))
    )
    threading.Thread(target=lambda: (sys.stdin.read(), rclpy.try_shutdown()), daemon=True).start()
    with suppress(ExternalShutdownException):
        rclpy.spin(node)


if __name__ == "__main__":
    main()
