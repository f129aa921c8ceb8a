"""Options of the robot and the teleoperator of type `dora`; needs LeRobot."""

from dataclasses import dataclass

from lerobot.robots import RobotConfig
from lerobot.teleoperators import TeleoperatorConfig

from lerobot_robot_dora.messages import MAX_AGE

# The fields become command-line options of LeRobot.


@RobotConfig.register_subclass("dora")
@dataclass(kw_only=True)
class DoraRobotConfig(RobotConfig):
    """A robot behind the inputs and the output `action` of a node."""

    robot_type: str = "dora"
    """Type of the robot in datasets."""
    node: str | None = None
    """Id of a node with `path: dynamic`; None: a dataflow has started the script."""
    dataflow: str | None = None
    """Name or UUID of the dataflow; None: the only one with such a node."""
    max_age: float = MAX_AGE
    """Seconds; older messages are not used: the script waits for newer ones."""
    timeout: float = 60.0
    """Seconds without new messages until the script ends."""


@TeleoperatorConfig.register_subclass("dora")
@dataclass(kw_only=True)
class DoraTeleoperatorConfig(TeleoperatorConfig):
    """A leader arm behind the input `action` and the output `feedback` of a node."""

    node: str | None = None
    """Id of a node with `path: dynamic`; None: a dataflow has started the script."""
    dataflow: str | None = None
    """Name or UUID of the dataflow; None: the only one with such a node."""
    max_age: float = MAX_AGE
    """Seconds; older messages are not used: the script waits for newer ones."""
    timeout: float = 60.0
    """Seconds without new messages until the script ends."""
