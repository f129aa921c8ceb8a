"""The node `dora-lerobot-policy`: computes chunks of actions, on any machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dora_node_api import Node, Sample
from lerobot_robot_dora import pictures
from lerobot_robot_dora.events import Warnings, lerobot_needed
from lerobot_robot_dora.messages import (
    NAMES,
    OBSERVED_AT,
    MessageUnusable,
    Metadata,
    action_names,
    numbers,
)
from lerobot_robot_dora.pictures import Picture

STATE, CHUNK, TASK = "state", "chunk", "task"
Chunk = NDArray[np.float32]


class Policy(Protocol):
    """A policy that is loaded."""

    cameras: Sequence[str]
    state_size: int | None
    """Numbers of the state; None: the policy has no state."""
    action_size: int

    def predict(self, state: Chunk, images: Mapping[str, Picture], task: str) -> Chunk:
        """Return steps, each with the numbers of an action."""

    def reset(self) -> None:
        """Discard the state of earlier predictions."""


class PolicyNode:
    """Connects a policy to its node."""

    def __init__(self, node: Node, policy: Policy, given: argparse.Namespace) -> None:
        self._node = node
        self._policy = policy
        self._given = given
        self._task: str = given.task
        self._number = 0
        self._warnings = Warnings(node)
        self._check()

    def _check(self) -> None:
        inputs = set(self._node.node_config()["inputs"])
        missing = {STATE, *self._policy.cameras} - inputs
        if missing:
            sys.exit(
                f"the policy needs the inputs {', '.join(sorted({STATE, *self._policy.cameras}))};"
                f" missing: {', '.join(sorted(missing))}; name the inputs as the policy does"
            )
        if self._node.node_config()["outputs"] != [CHUNK]:
            sys.exit(f"dora-lerobot-policy has one output, `{CHUNK}`")

    def handle(self, event: Any) -> None:
        match event:
            case Sample(inputs=messages):
                try:
                    self._predict(
                        {name: (one.value, one.metadata) for name, one in messages.items()}
                    )
                except MessageUnusable as refused:
                    self._warnings.warn(STATE, str(refused))
            case {"type": "PARAM_UPDATE", "id": name, "value": value} if name == TASK:
                self._begin(str(value))
            case {"type": "PARAM_DELETED", "id": name} if name == TASK:
                self._begin(self._given.task)

    def _begin(self, task: str) -> None:
        """Begin a new episode with a task."""
        self._task = task
        self._policy.reset()
        self._node.log_info(f"task: {task}")

    def _predict(self, messages: dict[str, tuple[pa.Array, Metadata]]) -> None:
        """Raises MessageUnusable."""
        value, metadata = messages[STATE]
        state = np.array(numbers(value), np.float32)
        if self._policy.state_size not in (None, len(state)):
            raise MessageUnusable(
                f"the state has {len(state)} numbers, the policy was trained with"
                f" {self._policy.state_size}"
            )
        actions = action_names(metadata)
        if len(actions) != self._policy.action_size:
            raise MessageUnusable(
                f"the robot has {len(actions)} actions ({', '.join(actions)}), the policy was"
                f" trained with {self._policy.action_size}"
            )
        if OBSERVED_AT not in metadata:
            raise MessageUnusable(
                f"the metadata has no `{OBSERVED_AT}`; dora-lerobot-robot sends it"
            )
        images = {name: pictures.read(*messages[name]) for name in self._policy.cameras}
        steps = self._policy.predict(state, images, self._task)[: self._given.steps]
        self._number += 1
        flat = pa.array(np.ascontiguousarray(steps, np.float32).ravel())
        self._node.send_output(
            CHUNK,
            pa.FixedSizeListArray.from_arrays(flat, len(actions)),
            {
                NAMES: list(actions),
                "dt": 1 / self._given.fps,
                OBSERVED_AT: metadata[OBSERVED_AT],
                "policy": self._given.policy,
                "chunk": self._number,
            },
        )


def _newest(node: Node, cameras: Sequence[str], within: float) -> Iterator[Any]:
    """Yield events; of several waiting samples, only the newest."""
    events = node.joined(STATE, *cameras, within=within)
    for event in events:
        waiting = event
        while not _ends(waiting):
            more = events.next(timeout=0)
            if more is None or _is_timeout(more):
                break
            if not (isinstance(waiting, Sample) and isinstance(more, Sample)):
                yield waiting
            waiting = more
        yield waiting
        if _ends(waiting):
            return


def _ends(event: Any) -> bool:
    return isinstance(event, dict) and event["type"] == "STOP"


def _is_timeout(event: Any) -> bool:
    return isinstance(event, dict) and event["type"] == "ERROR"


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dora-lerobot-policy",
        description="Computes chunks of actions with a policy of LeRobot; started by a dataflow.",
    )
    parser.add_argument(
        "--policy",
        metavar="PATH",
        required=True,
        help="folder of a checkpoint, or its name on the Hugging Face hub",
    )
    parser.add_argument("--device", help="such as cuda or cpu; default as in the checkpoint")
    parser.add_argument(
        "--fps",
        metavar="HZ",
        type=_positive(float),
        default=30.0,
        help="steps per second, as in the data of the training; default 30",
    )
    parser.add_argument(
        "--steps",
        metavar="COUNT",
        type=_positive(int),
        help="steps to send of each chunk; default all",
    )
    parser.add_argument(
        "--task", default="", help="start value of the parameter `task`, for policies that read it"
    )
    parser.add_argument(
        "--within",
        metavar="SECONDS",
        type=_positive(float),
        default=0.05,
        help="how far apart state and pictures may be captured; default 0.05",
    )
    return parser.parse_args(arguments)


def _positive(kind: type[int] | type[float]) -> Any:
    def read(text: str) -> float:
        number = kind(text)
        if not 0 < number < 1e9:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return number

    return read


def run(node: Node, policy: Policy, given: argparse.Namespace) -> None:
    """Send chunks until the node stops."""
    connected = PolicyNode(node, policy, given)
    for event in _newest(node, policy.cameras, given.within):
        connected.handle(event)


def main() -> None:
    """The script `dora-lerobot-policy`."""
    given = options(sys.argv[1:])
    with lerobot_needed("dora-lerobot-policy"):
        from lerobot_robot_dora.checkpoint import Checkpoint

    policy = Checkpoint(given.policy, given.device)
    run(Node(), policy, given)


if __name__ == "__main__":
    main()
