"""`--teleop.type=dora`: a leader arm on any machine, for the scripts of LeRobot."""

from __future__ import annotations

from typing import Any

from lerobot.teleoperators import Teleoperator

from lerobot_robot_dora.client import Client
from lerobot_robot_dora.config import DoraTeleoperatorConfig
from lerobot_robot_dora.messages import NAMES, array, named
from lerobot_robot_dora.session import ACTION, FEEDBACK


class DoraTeleoperator(Teleoperator):
    """A teleoperator whose actions are the input `action` of a node."""

    config_class = DoraTeleoperatorConfig
    name = "dora"

    def __init__(self, config: DoraTeleoperatorConfig) -> None:
        super().__init__(config)
        self.config = config
        self._client = Client(config, leader=True)

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(self._client.features.names, float)

    @property
    def feedback_features(self) -> dict[str, Any]:
        return self.action_features if FEEDBACK in self._client.session.outputs else {}

    @property
    def is_connected(self) -> bool:
        return self._client.connected

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        self._client.connect()

    def calibrate(self) -> None:
        """Do nothing: the node that holds the leader arm calibrates it."""

    def configure(self) -> None:
        """Do nothing: the node that holds the leader arm configures it."""

    def get_action(self) -> dict[str, Any]:
        found = self._client.wait()[ACTION]
        return named(found.value, found.metadata)

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        values = array([float(value) for value in feedback.values()])
        self._client.session.send(FEEDBACK, values, {NAMES: list(feedback)})

    def disconnect(self) -> None:
        self._client.disconnect()
