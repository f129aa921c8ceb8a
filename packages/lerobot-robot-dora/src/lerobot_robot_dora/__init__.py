"""LeRobot on dora dataflows: its scripts, robots, leader arms and policies, on any machine.

LeRobot imports this package by its name, to find the robot and the teleoperator of type `dora`. The
nodes import only the modules that they need, and the logic of the nodes needs no LeRobot.
"""

import sys
from importlib import import_module
from typing import Any

from lerobot_robot_dora._version import __version__ as __version__

_HOMES = {
    "DoraRobot": "dorarobot",
    "DoraRobotConfig": "config",
    "DoraTeleoperator": "dorateleoperator",
    "DoraTeleoperatorConfig": "config",
}


def __getattr__(name: str) -> Any:
    """Import a class when it is used: LeRobot takes seconds to import."""
    if (module := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)


if "lerobot" in sys.modules:
    # This import registers the types `dora`, which LeRobot looks for when it has imported plug-ins.
    import_module("lerobot_robot_dora.config")
