"""The nodes, without LeRobot: devices and policies of a few lines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from dora_node_api.testing import MockNode
from lerobot_robot_dora import policy_node, robot_node, steps_node, teleop_node

TICK = {"type": "INPUT", "id": "tick", "value": pa.nulls(0), "metadata": {}}
NAMES = ["pan.pos", "grip.pos"]


class Single(MockNode):
    """Hands out one event at a time."""

    def try_recv(self) -> None:
        return None


def node(events: list[Any], inputs: Sequence[str], outputs: Sequence[str]) -> Single:
    config = {"inputs": dict.fromkeys(inputs, "a/b"), "outputs": list(outputs)}
    return Single(events, node_config=config)


def message(name: str, values: list[float], names: list[str], **metadata: Any) -> dict[str, Any]:
    value = pa.array(values, pa.float32())
    return {
        "type": "INPUT",
        "id": name,
        "value": value,
        "metadata": {"names": names, **metadata},
    }


def warnings(of: MockNode) -> list[str]:
    return [entry["message"] for entry in of.logs if entry["level"] == "warn"]


class Arm:
    """Moves at most to 1."""

    def __init__(self) -> None:
        self.position = dict.fromkeys(NAMES, 0.0)
        self.feedback: list[dict[str, float]] = []

    @property
    def observation_features(self) -> dict[str, Any]:
        return {**dict.fromkeys(NAMES, float), "front": (2, 2, 3)}

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(NAMES, float)

    def get_observation(self) -> dict[str, Any]:
        return {**self.position, "front": np.zeros((2, 2, 3), np.uint8)}

    def send_action(self, action: dict[str, float]) -> dict[str, Any]:
        self.position = {name: min(value, 1.0) for name, value in action.items()}
        return self.position

    def get_action(self) -> dict[str, Any]:
        return {"pan.pos": 1, "grip.pos": 2.5}

    def send_feedback(self, feedback: dict[str, float]) -> None:
        self.feedback.append(feedback)


# --- robot --------------------------------------------------------------------------------------


def robot(events: list[Any], outputs: Sequence[str] = ("state", "front", "executed")) -> Single:
    made = node(events, ("tick", "action"), outputs)
    robot_node.run(made, Arm(), jpeg=0)
    return made


def test_a_tick_sends_state_and_pictures() -> None:
    before = time.monotonic_ns()
    made = robot([TICK])
    assert made.outputs["state"][0].to_pylist() == [0.0, 0.0]
    (metadata,) = made.output_metadata["state"]
    assert before <= metadata.pop("observed_at") <= time.monotonic_ns()
    assert metadata == {"names": NAMES, "action_names": NAMES}
    assert made.output_metadata["front"] == [{"width": 2, "height": 2, "encoding": "rgb8"}]


def test_what_is_executed_goes_out_with_its_source() -> None:
    action = message("action", [2.0, 0.5], ["grip.pos", "pan.pos"], source="human", timestamp="x")
    made = robot([action, TICK])
    assert made.outputs["executed"][0].to_pylist() == [0.5, 1.0]
    assert made.output_metadata["executed"] == [{"names": NAMES, "source": "human"}]
    assert made.outputs["state"][0].to_pylist() == [0.5, 1.0]


def test_of_actions_that_wait_the_newest_is_executed() -> None:
    actions = [message("action", [value, value], NAMES) for value in (0.1, 0.2, 0.5)]
    config = {"inputs": {}, "outputs": ["state", "executed"]}
    made = MockNode([*actions, TICK, TICK], node_config=config)
    robot_node.run(made, Arm(), jpeg=0)
    assert [value.to_pylist() for value in made.outputs["executed"]] == [[0.5, 0.5]]
    assert len(made.outputs["state"]) == 1
    assert "front" not in made.outputs


def test_wrong_names_are_one_sentence() -> None:
    wrong = message("action", [1.0, 1.0], ["pan.pos", "wrist.pos"])
    short = message("action", [1.0], NAMES)
    made = robot([wrong, wrong, short, TICK])
    assert warnings(made) == [
        "input `action`: the names differ from the robot's: without grip.pos; unknown"
        " wrist.pos; ignored (reported once)",
        "input `action`: there are 1 numbers, but 2 names; ignored (reported once)",
    ]
    assert "executed" not in made.outputs
    assert made.outputs["state"][0].to_pylist() == [0.0, 0.0]


def test_an_old_action_is_not_executed() -> None:
    """Links deliver those after a cut."""
    old, new = (message("action", [value, value], NAMES) for value in (0.5, 0.7))
    old["captured_ns"] = time.monotonic_ns() - 300_000_000
    new["captured_ns"] = time.monotonic_ns() + 10**12
    made = robot([old, TICK])
    assert warnings(made) == [
        "input `action`: an action is 0.3 s old when it arrives; the limit is 0.2 s; ignored"
        " (reported once)"
    ]
    assert "executed" not in made.outputs
    assert robot([old, new]).outputs["executed"][0].to_pylist() == pytest.approx([0.7, 0.7])


def test_an_output_that_the_robot_lacks() -> None:
    with pytest.raises(SystemExit, match="the output wrist does not exist; this device has: exec"):
        robot([], ["state", "wrist"])


# --- teleoperator -------------------------------------------------------------------------------


def test_a_leader_sends_its_actions_and_takes_feedback() -> None:
    arm = Arm()
    made = node([TICK, message("feedback", [3.0, 4.0], NAMES)], ("tick", "feedback"), ["action"])
    teleop_node.run(made, arm)
    assert made.outputs["action"][0].to_pylist() == [1.0, 2.5]
    assert made.output_metadata["action"] == [{"names": NAMES}]
    assert arm.feedback == [{"pan.pos": 3.0, "grip.pos": 4.0}]


# --- steps --------------------------------------------------------------------------------------


def chunk(observed: object, *, steps: int = 100, **metadata: Any) -> dict[str, Any]:
    flat = pa.array([float(one) for one in range(2 * steps)], pa.float32())
    known = {"names": NAMES, "dt": 1.0, "observed_at": observed, "policy": "act", "chunk": 7}
    return {
        "type": "INPUT",
        "id": "chunk",
        "value": pa.FixedSizeListArray.from_arrays(flat, 2),
        "metadata": {**known, **metadata},
    }


def steps(*events: Any) -> Single:
    made = node(list(events), ("tick", "chunk"), ["action"])
    steps_node.run(made, ["--hold-after", "100"])
    return made


def test_the_due_step_is_sent() -> None:
    made = steps(chunk(time.monotonic_ns() - 350_000_000_000, dt=100.0), TICK)
    assert made.outputs["action"][0].to_pylist() == [6.0, 7.0]
    assert made.output_metadata["action"] == [
        {"names": NAMES, "policy": "act", "chunk": 7, "step": 3}
    ]


def test_the_time_of_day_has_no_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("time", 0.0), ("time_ns", 0)):
        monkeypatch.setattr(time, name, lambda value=value: value)
    made = steps(chunk(time.monotonic_ns() - 350_000_000_000, dt=100.0), TICK)
    assert made.outputs["action"][0].to_pylist() == [6.0, 7.0]
    (metadata,) = robot([TICK]).output_metadata["state"]
    assert metadata["observed_at"] > 10**9


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (chunk(None), "no whole number `observed_at`; copy it unchanged from the state"),
        (chunk(0, dt="1"), "no number `dt`"),
        (chunk(0, names=["a"]), "a step has 2 numbers, but there are 1 names"),
        (chunk(0, steps=1), "all 1 steps are past"),
        (message("chunk", [1.0], ["a"]), "the message is float; expected a FixedSizeList of"),
    ],
)
def test_wrong_chunks_are_one_sentence(wrong: dict[str, Any], problem: str) -> None:
    made = steps(wrong, wrong, TICK)
    (found,) = warnings(made)
    assert problem in found
    assert "action" not in made.outputs


# --- policy -------------------------------------------------------------------------------------


class Fixed:
    """Repeats the state in each step."""

    cameras: Sequence[str] = ("front",)
    state_size: int | None = 2
    action_size = 2

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.resets = 0

    def predict(
        self, state: NDArray[np.float32], images: Mapping[str, Any], task: str
    ) -> NDArray[np.float32]:
        assert images["front"].shape == (2, 2, 3)
        self.tasks.append(task)
        return np.repeat(state[None], 4, axis=0)

    def reset(self) -> None:
        self.resets += 1


def observation(at: int, value: float = 1.0, **metadata: Any) -> list[dict[str, Any]]:
    """State and picture of one moment."""
    state = message("state", [value, value], NAMES, stamp=at, observed_at=at, **metadata)
    size = {"width": 2, "height": 2, "stamp": at}
    front = {"type": "INPUT", "id": "front", "value": pa.array([0] * 12, pa.uint8())}
    return [state, {**front, "metadata": size}]


def policy(events: list[Any], *arguments: str, inputs: Sequence[str] = ("state", "front")) -> Any:
    made, fixed = node(events, inputs, ["chunk"]), Fixed()
    policy_node.run(made, fixed, policy_node.options(["--policy", "act", *arguments]))
    return made, fixed


def test_a_chunk_has_the_time_of_its_observation() -> None:
    made, _ = policy(observation(17), "--fps", "50", "--steps", "3")
    (sent,) = made.outputs["chunk"]
    assert sent.to_pylist() == [[1.0, 1.0]] * 3
    assert made.output_metadata["chunk"] == [
        {"names": NAMES, "dt": 0.02, "observed_at": 17, "policy": "act", "chunk": 1}
    ]
    assert steps_node.read_chunk(sent, made.output_metadata["chunk"][0]).observed == 17


def test_the_newest_observation_is_used() -> None:
    made, _ = policy([*observation(10**9), *observation(2 * 10**9, 5.0)])
    assert made.outputs["chunk"][-1].to_pylist() == [[5.0, 5.0]] * 4


def test_a_task_begins_an_episode() -> None:
    update = {"type": "PARAM_UPDATE", "id": "task", "value": "place"}
    _, fixed = policy([*observation(10**9), update, *observation(2 * 10**9)], "--task", "pick")
    assert fixed.tasks in (["pick", "place"], ["place"])
    assert fixed.resets == 1


def test_a_state_of_another_robot_is_one_sentence() -> None:
    events = observation(10**9, action_names=["pan.pos"])
    made, _ = policy(events)
    assert warnings(made) == [
        "input `state`: the robot has 1 actions (pan.pos), the policy was trained with 2;"
        " ignored (reported once)"
    ]
    assert "chunk" not in made.outputs


def test_inputs_that_the_policy_needs() -> None:
    with pytest.raises(SystemExit) as ended:
        policy([], inputs=("state", "wrist"))
    assert str(ended.value) == (
        "the policy needs the inputs front, state; missing: front; name the inputs as the policy"
        " does"
    )
