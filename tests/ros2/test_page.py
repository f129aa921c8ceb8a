"""The page of `dora ui` and the lists of dora beside a bridge, in a real browser."""

from __future__ import annotations

import json
import re

import pytest
from ros2.routers import running_router
from support.browser.conditions import see
from support.browser.session import chromium, opened, screenshot
from support.dora import run_dora, running_dora
from support.workspace import Workspace

from dora_ros2.connection import RosNode
from dora_ros2.types import Types
from dora_ros2.zenoh.tokens import Qos

pytestmark = pytest.mark.integration

TYPES = Types()
TWIST = TYPES.message("geometry_msgs/Twist")
POSE = TYPES.message("turtlesim/Pose")
ADD = TYPES.service("example_interfaces/AddTwoInts")


def test_the_ros_graph_of_a_bridge_and_what_it_waits_for(workspace: Workspace) -> None:
    topics = [
        {"topic": "/pose", "message_type": "turtlesim/Pose", "output": "pose"},
        {"topic": "/untyped", "output": "untyped"},
    ]
    settings = {"topics": topics, "transport": {"kind": "zenoh"}}
    node = {"id": "turtle", "ros2": settings, "outputs": ["pose", "untyped"]}
    sink = {"id": "sink", "path": "sink.py", "inputs": {"pose": "turtle/pose"}}
    workspace.node("sink", "from dora import Node\nfor event in Node():\n    pass\n")
    flow = workspace.dataflow({"nodes": [node, sink]})
    with running_router() as router, router.open() as session, chromium() as browser:
        override = f"connect/endpoints={json.dumps([router.endpoint])}"
        env = {"ZENOH_CONFIG_OVERRIDE": override}
        other = RosNode(session, "robot")
        other.publisher("/pose", TWIST, Qos(reliable=False))
        other.service_server("/add", ADD, lambda request: request.fail("not here"))
        with running_dora("run", flow, "--ui", cwd=workspace.path, env=env) as run:
            ui = opened(run, browser)
            doctor = run_dora("doctor", env=env).succeeded().output
            assert re.search(
                r"PASS  ROS 2: node turtle \(pid \d+\): domain 0, Zenoh, connected to "
                rf".*127.0.0.1:{router.port}\b.*, listens on 127.0.0.1:\d+\n",
                doctor,
            ), doctor
            page = ui.open()
            see(page, ".side a[href*=dataflow]").click()
            page.wait_for_url("**/dataflow/**")
            page = ui.open("dataflow", page.url.rpartition("/dataflow/")[2], "node", "turtle")
            see(page, ".reason", "waits for a publisher of /untyped with a type")
            see(page, ".ros h2", "2 nodes over Zenoh; this one is /turtle")
            row = see(page, ".ros tr", "/pose")
            see(page, ".ros tr", "the types differ: geometry_msgs/msg/Twist and turtlesim/msg/Pose")
            assert "subscribes" in row.inner_text()
            screenshot(page, "ros")
            see(page, ".ros tr", "/add").get_by_text("/robot").wait_for()
            other.publisher("/untyped", POSE)
            see(page, ".ros tr", "/untyped").get_by_text("turtlesim/msg/Pose").wait_for()
            page.locator(".reason").wait_for(state="detached")
            assert ui.errors == []
            run.interrupt()
            run.wait().succeeded()
