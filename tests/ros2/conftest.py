"""What tests of dora-ros2 share."""

from __future__ import annotations

import os

ORACLE = "DORA_TESTS_RCLPY"
"""Set by ``nox -s ros2``: the interpreter of an environment with rclpy."""
ZENOH_SDK = "DORA_TESTS_ZENOH_SDK"
"""Set by ``nox -s ros2``: the interpreter of an environment with zenoh-ros2-sdk."""

collect_ignore = [
    folder
    for variable, folder in ((ORACLE, "oracle"), (ZENOH_SDK, "interop"))
    if not os.environ.get(variable)
]
