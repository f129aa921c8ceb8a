"""What tests of dora-ros2 share."""

from __future__ import annotations

import os

ORACLE = "DORA_TESTS_RCLPY"
"""Set by ``nox -s ros2``: the interpreter of an environment with rclpy."""

collect_ignore = [] if os.environ.get(ORACLE) else ["oracle"]
