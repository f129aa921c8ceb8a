"""A simulated arm and its leader, as a robot and a teleoperator of LeRobot."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig

JOINTS = ("shoulder_pan.pos", "elbow_flex.pos", "gripper.pos")


class Device:
    """What the scripts ask of each device."""

    is_connected = False
    is_calibrated = True

    def connect(self, calibrate: bool = True) -> None:
        self.is_connected = True
        self.began = time.monotonic()

    def disconnect(self) -> None:
        self.is_connected = False

    def calibrate(self) -> None:
        """Nothing to calibrate."""

    def configure(self) -> None:
        """Nothing to configure."""

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(JOINTS, float)


@RobotConfig.register_subclass("sim_arm")
@dataclass(kw_only=True)
class SimArmConfig(RobotConfig):
    """Size of its picture."""

    height: int = 48
    width: int = 64


class SimArm(Device, Robot):
    config_class = SimArmConfig
    name = "sim_arm"
    cameras: dict[str, Any] = {"front": None}  # noqa: RUF012

    def __init__(self, config: SimArmConfig) -> None:
        super().__init__(config)
        self.size = (config.height, config.width, 3)
        self.position = dict.fromkeys(JOINTS, 0.0)

    @property
    def observation_features(self) -> dict[str, Any]:
        return {**dict.fromkeys(JOINTS, float), "front": self.size}

    def get_observation(self) -> dict[str, Any]:
        picture = np.full(self.size, 128 + self.position[JOINTS[0]], np.uint8)
        return {**self.position, "front": picture}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self.position = {name: float(np.clip(action[name], -90, 90)) for name in JOINTS}
        return self.position


@TeleoperatorConfig.register_subclass("sim_leader")
@dataclass(kw_only=True)
class SimLeaderConfig(TeleoperatorConfig):
    """Has no options."""


class SimLeader(Device, Teleoperator):
    config_class = SimLeaderConfig
    name = "sim_leader"
    feedback_features: dict[str, Any] = {}  # noqa: RUF012

    def get_action(self) -> dict[str, Any]:
        angle = math.pi * (time.monotonic() - self.began) / 2
        values = (40 * math.sin(angle), 30 * math.cos(angle), 20 * math.sin(2 * angle))
        return dict(zip(JOINTS, values, strict=True))

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        """It has no motors."""
