"""Sessions of ROS 2 that `dora doctor` lists."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from dora_ros2 import sessions

OPEN_SESSION = """
import sys
import zenoh
config = zenoh.Config()
config.insert_json5("listen/endpoints", '["tcp/0.0.0.0:0"]')
config.insert_json5("scouting/multicast/enabled", "false")
with zenoh.open(config):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_ros_session_that_other_computers_reach_is_a_warning() -> None:
    config = json.dumps({"node_id": "camera"})
    env = {**os.environ, "DORA_NODE_CONFIG": config, "ROS_DOMAIN_ID": "7"}
    with subprocess.Popen(
        [sys.executable, "-c", OPEN_SESSION],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        start = f"node camera (pid {process.pid}): domain 7, Zenoh, listens on 0.0.0.0:"
        (found,) = [one for one in sessions.check() if one.text.startswith(start)]
        process.communicate()
    assert found.result == "WARN"
    assert "other computers can connect" in found.text
