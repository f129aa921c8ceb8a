"""The session of a script: newest messages, cuts, the end of the dataflow."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from support.waiting import wait_until

from dora_node_api.testing import MockNode
from lerobot_robot_dora.session import RobotSession

CONFIG = {"inputs": {"state": "a/b", "action": "c/d"}, "outputs": ["action"]}


class Waiting(MockNode):
    """Waits for what the test appends, instead of ending."""

    def __init__(self) -> None:
        super().__init__([], node_config=CONFIG)
        self.waiting: list[dict[str, Any]] = []

    def next(self, timeout: float | None = None) -> Any:
        if self.waiting:
            return self.waiting.pop(0)
        threading.Event().wait(0.001)
        return {"type": "ERROR", "error": "timeout"}

    def correct_times(self, *inputs: str) -> None:
        pass


def state(value: float, names: tuple[str, ...] = ("pan.pos",)) -> dict[str, Any]:
    return {
        "type": "INPUT",
        "id": "state",
        "value": pa.array([value] * len(names)),
        "metadata": {"names": list(names)},
        "captured_ns": time.monotonic_ns(),
    }


@pytest.fixture
def node() -> Waiting:
    return Waiting()


@pytest.fixture
def session(node: Waiting, monkeypatch: pytest.MonkeyPatch) -> Iterator[RobotSession]:
    monkeypatch.setattr(_thread, "interrupt_main", interrupts.set)
    interrupts.clear()
    made = RobotSession(node)
    yield made
    made.close()


interrupts = threading.Event()


def test_the_newest_message_of_each_input(node: Waiting, session: RobotSession) -> None:
    node.waiting += [state(1.0), state(2.0)]
    wait_until(lambda: not node.waiting, what="messages to be read")
    found = session.wait(session.robot, 60.0, 60.0)
    assert found.keys() == {"state"}
    assert session.leader.missing() == ("action",)


def test_old_messages_are_not_used(node: Waiting, session: RobotSession) -> None:
    """A script waits during a cut, and goes on by itself."""
    old = state(1.0)
    old["captured_ns"] -= 10**12
    node.waiting.append(old)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(session.wait(session.robot, 60.0, 60.0)))
    thread.start()
    wait_until(lambda: not session.robot.missing(), what="the old message")
    assert not found
    node.waiting.append(state(2.0))
    thread.join()
    assert found[0]["state"].value.to_pylist() == [2.0]


def test_a_missing_input_is_named(session: RobotSession) -> None:
    with pytest.raises(ConnectionError) as ended:
        session.wait(session.robot, 0.2, 0.01)
    assert str(ended.value) == (
        "node `mock`: no message of input state for 0.01 s that was at most 0.2 s old"
    )


def test_a_refused_message_is_the_reason(node: Waiting, session: RobotSession) -> None:
    node.waiting += [{**state(1.0), "metadata": {}}]
    wait_until(lambda: not node.waiting, what="the message to be read")
    with pytest.raises(ConnectionError, match="input `state`: the metadata has no list `names`"):
        session.wait(session.robot, 0.2, 0.05)


def test_the_end_of_the_dataflow_interrupts_the_script(
    node: Waiting, session: RobotSession
) -> None:
    node.waiting += [state(1.0), {"type": "STOP"}]
    wait_until(interrupts.is_set, what="the interrupt")
    assert session.wait(session.robot, 0.0, 60.0)["state"].value.to_pylist() == [1.0]
    session.send("action", pa.array([1.0]), {})
    assert node.outputs == {}
    with pytest.raises(ConnectionError, match="the dataflow has ended"):
        session.wait(session.leader, 0.2, 60.0)
