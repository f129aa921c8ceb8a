"""Robots and teleoperators of LeRobot, by the options of its own scripts; needs LeRobot."""

import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from lerobot.configs import parser
from lerobot.robots import RobotConfig
from lerobot.robots.utils import make_robot_from_config
from lerobot.teleoperators import TeleoperatorConfig
from lerobot.teleoperators.utils import make_teleoperator_from_config
from lerobot.utils.import_utils import register_third_party_plugins

from lerobot_robot_dora.messages import MAX_AGE


@dataclass
class RobotArguments:
    """Holds a robot of LeRobot; started by a dataflow, on the machine of the robot."""

    robot: RobotConfig
    """The robot, as in the scripts of LeRobot."""
    jpeg: int = 0
    """Quality of pictures as JPEG, from 1 to 100; 0: raw pictures."""
    max_age: float = MAX_AGE
    """Seconds; older actions are not executed."""


@dataclass
class TeleoperatorArguments:
    """Holds a teleoperator of LeRobot; started by a dataflow, on its machine."""

    teleop: TeleoperatorConfig
    """The teleoperator, as in the scripts of LeRobot."""


def robot_arguments() -> RobotArguments:
    """Return the options of the process. Ends it with a message if they cannot be used."""
    _register("lerobot.robots")
    _register("lerobot.cameras")
    given: RobotArguments = _robot_arguments()
    return given


def teleoperator_arguments() -> TeleoperatorArguments:
    """Return the options of the process. Ends it with a message if they cannot be used."""
    _register("lerobot.teleoperators")
    given: TeleoperatorArguments = _teleoperator_arguments()
    return given


# LeRobot's parser also has `--robot.discover_packages_path=PACKAGE` and a short `--help`.
@parser.wrap()
def _robot_arguments(given: RobotArguments) -> RobotArguments:
    return given


@parser.wrap()
def _teleoperator_arguments(given: TeleoperatorArguments) -> TeleoperatorArguments:
    return given


def _register(package: str) -> None:
    """Import the devices of LeRobot and of plug-ins, which registers their types."""
    for module in pkgutil.iter_modules(import_module(package).__path__):
        if module.ispkg:
            with suppress(ImportError):  # the library of this device is not installed
                import_module(f"{package}.{module.name}")
    register_third_party_plugins()


@contextmanager
def connected(config: RobotConfig | TeleoperatorConfig) -> Iterator[Any]:
    """Yield the connected device."""
    is_robot = isinstance(config, RobotConfig)
    device = (make_robot_from_config if is_robot else make_teleoperator_from_config)(config)
    device.connect()
    try:
        yield device
    finally:
        device.disconnect()
