"""The node `dora-lerobot-robot`: holds a robot of LeRobot, on the machine of the robot."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, Protocol

from dora_node_api import Node
from lerobot_robot_dora import pictures
from lerobot_robot_dora.events import Event, Warnings, batches, lerobot_needed, newest
from lerobot_robot_dora.messages import (
    ACTION_NAMES,
    MAX_AGE,
    NAMES,
    OBSERVED_AT,
    MessageUnusable,
    action,
    array,
)

TICK, ACTION = "tick", "action"
STATE, EXECUTED = "state", "executed"
"""Outputs besides the cameras."""


class Robot(Protocol):
    """The part of LeRobot's `Robot` that the node uses."""

    @property
    def observation_features(self) -> dict[str, Any]: ...

    @property
    def action_features(self) -> dict[str, Any]: ...

    def get_observation(self) -> dict[str, Any]: ...

    def send_action(self, action: dict[str, float]) -> dict[str, Any]: ...


class RobotNode:
    """Connects a robot to its node."""

    def __init__(self, node: Node, robot: Robot, jpeg: int = 0, max_age: float = MAX_AGE) -> None:
        self._node = node
        self._robot = robot
        self._jpeg = jpeg
        self._max_age = max_age
        self._warnings = Warnings(node)
        features = robot.observation_features
        self._cameras = [name for name, kind in features.items() if isinstance(kind, tuple)]
        self._names = [name for name in features if name not in self._cameras]
        self._actions = list(robot.action_features)
        check_outputs(node, {STATE, EXECUTED, *self._cameras})
        self._outputs = set(node.node_config()["outputs"])
        node.correct_times(ACTION)

    def handle(self, batch: list[Event]) -> None:
        """Execute the newest action, and observe at a tick."""
        events = newest(batch)
        if (event := events.get(ACTION)) is not None:
            try:
                self._check_age(event)
                wanted = action(event["value"], event["metadata"], self._actions)
            except MessageUnusable as refused:
                self._warnings.warn(ACTION, str(refused))
            else:
                self._execute(wanted, event["metadata"])
        if TICK in events:
            self._observe()

    def _check_age(self, event: Event) -> None:
        """Refuse old messages, such as a link delivers after a cut. Raises MessageUnusable."""
        now = time.monotonic_ns()
        age = (now - event.get("captured_ns", now)) / 1e9
        if age > self._max_age:
            raise MessageUnusable(
                f"an action is {age:.3g} s old when it arrives; the limit is {self._max_age:g} s"
            )

    def _execute(self, wanted: dict[str, float], metadata: dict[str, Any]) -> None:
        executed = self._robot.send_action(wanted)
        if EXECUTED in self._outputs:
            values = [float(executed.get(name, wanted[name])) for name in self._actions]
            kept = {key: value for key, value in metadata.items() if key != "timestamp"}
            self._node.send_output(EXECUTED, array(values), {**kept, NAMES: self._actions})

    def _observe(self) -> None:
        observed = time.monotonic_ns()
        found = self._robot.get_observation()
        values = array([float(found[name]) for name in self._names])
        metadata = {NAMES: self._names, ACTION_NAMES: self._actions, OBSERVED_AT: observed}
        self._node.send_output(STATE, values, metadata)
        for name in self._cameras:
            if name in self._outputs:
                self._node.send_output(name, *pictures.write(found[name], self._jpeg))


def check_outputs(node: Node, known: Iterable[str]) -> None:
    """End the process if the node has an output that it would never send."""
    if unknown := set(node.node_config()["outputs"]).difference(known):
        sys.exit(
            f"the output {', '.join(sorted(unknown))} does not exist; this device has:"
            f" {', '.join(sorted(known))}"
        )


def run(node: Node, robot: Robot, jpeg: int = 0, max_age: float = MAX_AGE) -> None:
    """Observe and act until the node stops."""
    connected = RobotNode(node, robot, jpeg, max_age)
    for batch in batches(node):
        connected.handle(batch)


def main() -> None:
    """The script `dora-lerobot-robot`."""
    with lerobot_needed("dora-lerobot-robot"):
        from lerobot_robot_dora.devices import connected, robot_arguments

    given = robot_arguments()
    with connected(given.robot) as robot:
        run(Node(), robot, given.jpeg, given.max_age)


if __name__ == "__main__":
    main()
