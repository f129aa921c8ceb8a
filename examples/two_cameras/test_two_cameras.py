"""The two cameras in virtual time: `pytest examples/two_cameras/test_two_cameras.py`."""

from collections.abc import Callable

import numpy as np

from dora_testing import Flow, from_messages


def test_human_takes_over_and_lets_go(dora_flow: Callable[..., Flow]) -> None:
    out = dora_flow("dataflow.yml", env={"WIDTH": "160", "HEIGHT": "120"}).run()
    assert out.seconds == 4.98  # tick 250 of the human, who stops the demo
    assert out.lines("robot")[:-1] == [
        "policy moves the joints",
        "human moves the joints",
        "policy moves the joints",
    ]
    assert all(message.metadata["spread"] <= 0.02 for message in out["policy/action"])


def test_robot_holds_its_joints_while_no_one_moves_it(dora_flow: Callable[..., Flow]) -> None:
    flow = dora_flow(
        "dataflow.yml",
        env={"WIDTH": "160", "HEIGHT": "120"},
        replace={"policy": from_messages([]), "human": from_messages([])},
    )
    out = flow.run(until="1s")
    assert np.ptp(out["robot/state"].values, axis=0).max() == 0
