"""`--robot.type=dora`: a robot on any machine, for the scripts of LeRobot."""

from __future__ import annotations

from typing import Any

from lerobot.robots import Robot

from lerobot_robot_dora import pictures
from lerobot_robot_dora.client import Client
from lerobot_robot_dora.config import DoraRobotConfig
from lerobot_robot_dora.messages import NAMES, MessageUnusable, array, difference, named
from lerobot_robot_dora.session import ACTION


class DoraRobot(Robot):
    """A robot whose observations are inputs of a node, and whose actions are its output."""

    config_class = DoraRobotConfig
    name = "dora"

    def __init__(self, config: DoraRobotConfig) -> None:
        super().__init__(config)
        self.config = config
        self.name = config.robot_type
        self._client = Client(config, leader=False)

    @property
    def observation_features(self) -> dict[str, Any]:
        features = self._client.features
        sizes = {name: (*size, 3) for name, size in features.cameras.items()}
        return dict.fromkeys(features.names, float) | sizes

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(self._client.features.actions, float)

    @property
    def cameras(self) -> dict[str, Any]:
        """Cameras by name; scripts of LeRobot use their number."""
        return dict(self._client.features.cameras)

    @property
    def is_connected(self) -> bool:
        return self._client.connected

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        if ACTION not in self._client.session.outputs:
            raise ConnectionError(f"the node has no output `{ACTION}`; add it in the dataflow")
        self._client.connect()

    def calibrate(self) -> None:
        """Do nothing: the node that holds the robot calibrates it."""

    def configure(self) -> None:
        """Do nothing: the node that holds the robot configures it."""

    def get_observation(self) -> dict[str, Any]:
        features, found = self._client.features, self._client.wait()
        observation: dict[str, Any] = {}
        for name in features.numbers:
            observation |= named(found[name].value, found[name].metadata)
        for name in features.cameras:
            observation[name] = pictures.read(found[name].value, found[name].metadata)
        return observation

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        names = self._client.features.actions
        if action.keys() != set(names):
            raise MessageUnusable(difference(list(action), names))
        values = array([float(action[name]) for name in names])
        self._client.session.send(ACTION, values, {NAMES: list(names)})
        return action

    def disconnect(self) -> None:
        self._client.disconnect()
