"""The node `dora-lerobot-teleop`: holds a leader arm or another teleoperator of LeRobot."""

from __future__ import annotations

from typing import Any, Protocol

from dora_node_api import Node
from lerobot_robot_dora.events import Event, Warnings, batches, lerobot_needed, newest
from lerobot_robot_dora.messages import NAMES, MessageUnusable, array, named
from lerobot_robot_dora.robot_node import check_outputs

TICK, FEEDBACK, ACTION = "tick", "feedback", "action"


class Teleoperator(Protocol):
    """The part of LeRobot's `Teleoperator` that the node uses."""

    def get_action(self) -> dict[str, Any]: ...

    def send_feedback(self, feedback: dict[str, float]) -> None: ...


class TeleoperatorNode:
    """Connects a teleoperator to its node."""

    def __init__(self, node: Node, teleoperator: Teleoperator) -> None:
        self._node = node
        self._teleoperator = teleoperator
        self._warnings = Warnings(node)
        check_outputs(node, {ACTION})

    def handle(self, batch: list[Event]) -> None:
        events = newest(batch)
        if (event := events.get(FEEDBACK)) is not None:
            try:
                feedback = named(event["value"], event["metadata"])
            except MessageUnusable as refused:
                self._warnings.warn(FEEDBACK, str(refused))
            else:
                self._teleoperator.send_feedback(feedback)
        if TICK in events:
            found = self._teleoperator.get_action()
            values = array([float(value) for value in found.values()])
            self._node.send_output(ACTION, values, {NAMES: list(found)})


def run(node: Node, teleoperator: Teleoperator) -> None:
    """Send actions until the node stops."""
    connected = TeleoperatorNode(node, teleoperator)
    for batch in batches(node):
        connected.handle(batch)


def main() -> None:
    """The script `dora-lerobot-teleop`."""
    with lerobot_needed("dora-lerobot-teleop"):
        from lerobot_robot_dora.devices import connected, teleoperator_arguments

    given = teleoperator_arguments()
    with connected(given.teleop) as teleoperator:
        run(Node(), teleoperator)


if __name__ == "__main__":
    main()
