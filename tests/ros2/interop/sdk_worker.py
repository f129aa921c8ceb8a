"""Endpoints of zenoh-ros2-sdk, an independent implementation of rmw_zenoh; run in its environment.

Arguments: port of the router, then one of the words below. Each received message is printed.
"""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

from zenoh_ros2_sdk import (
    ROS2Publisher,
    ROS2ServiceClient,
    ROS2ServiceServer,
    ROS2Subscriber,
)

PORT = int(sys.argv[1])
STRING = {"msg_type": "std_msgs/msg/String", "msg_definition": "string data\n"}
ADD = {
    "service_name": "/robot/add",
    "srv_type": "example_interfaces/srv/AddTwoInts",
    "request_definition": "int64 a\nint64 b\n",
    "response_definition": "int64 sum\n",
    "node_name": "sdk",
    "router_port": PORT,
}


def talk() -> None:
    publisher = ROS2Publisher("/from_sdk", node_name="sdk", router_port=PORT, **STRING)
    number = 0
    while True:
        publisher.publish(data=f"{number} ü")
        number += 1
        time.sleep(0.02)


def listen() -> None:
    def received(message: Any) -> None:
        print(message.data, flush=True)

    subscriber = ROS2Subscriber(
        "/to_sdk", callback=received, node_name="sdk", router_port=PORT, **STRING
    )
    print("ready", flush=True)
    time.sleep(600)
    subscriber.close()


def serve() -> None:
    def add(request: Any) -> Any:
        return server.response_msg_class(sum=request.a + request.b)

    server: Any = SimpleNamespace()
    server = ROS2ServiceServer(callback=add, **ADD)
    time.sleep(600)


def call() -> None:
    client = ROS2ServiceClient(**ADD)
    print("ready", flush=True)
    for number in range(5):
        print(client.call(a=number, b=40).sum, flush=True)
    time.sleep(600)


if __name__ == "__main__":
    {"talk": talk, "listen": listen, "serve": serve, "call": call}[sys.argv[2]]()
