"""The node of a script of LeRobot, which its robot and its teleoperator share."""

from __future__ import annotations

import _thread
import logging
import threading
import time
from typing import Any

import pyarrow as pa

from dora_node_api import Node
from lerobot_robot_dora.messages import MessageUnusable
from lerobot_robot_dora.observations import Observations, Received

ACTION, FEEDBACK = "action", "feedback"
"""Outputs; `action` as an input has the actions of a leader arm."""
_PATIENCE = 0.1
"""Seconds until the reading thread notices that the session ends."""
_log = logging.getLogger(__name__)


class RobotSession:
    """Reads the messages of a node in a thread, and keeps the newest of each input."""

    def __init__(self, node: Node) -> None:
        self._node = node
        inputs = tuple(node.node_config()["inputs"])
        self.outputs = frozenset(node.node_config()["outputs"])
        self.robot = Observations(tuple(name for name in inputs if name != ACTION))
        self.leader = Observations(tuple(name for name in inputs if name == ACTION))
        self._problems: dict[str, str] = {}
        """Why the newest message of an input was refused."""
        self._changed = threading.Condition()
        self._stopped = False
        self._closing = False
        self.users = 0
        node.correct_times(*inputs)
        self._thread = threading.Thread(target=self._read, name="dora", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._closing:
            event = self._node.next(timeout=_PATIENCE)
            if event is None or event["type"] == "STOP":
                self._stop()
                return
            if event["type"] == "INPUT":
                self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        name = event["id"]
        group = self.leader if name == ACTION else self.robot
        captured = event.get("captured_ns", time.monotonic_ns())
        with self._changed:
            try:
                group.add(name, Received(event["value"], event["metadata"], captured))
                self._problems.pop(name, None)
            except MessageUnusable as refused:
                if name not in self._problems:
                    _log.warning("input `%s`: %s; ignored (reported once)", name, refused)
                self._problems[name] = str(refused)
            self._changed.notify_all()

    def _stop(self) -> None:
        """End the script as Ctrl-C does: LeRobot then closes its dataset."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if not self._closing:
            _thread.interrupt_main()

    def wait(self, group: Observations, max_age: float, timeout: float) -> dict[str, Received]:
        """Return the newest message of each input, once all are new enough.

        Raises ConnectionError after ``timeout`` seconds. At the end of the dataflow the newest ones
        are returned, however old they are.
        """
        deadline = time.monotonic() + timeout
        limit = round(max_age * 1e9)
        with self._changed:
            while old := group.old(time.monotonic_ns(), limit):
                if self._stopped:
                    if group.missing():
                        raise ConnectionError("the dataflow has ended")
                    break
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ConnectionError(self._absence(old, max_age, timeout))
                self._changed.wait(min(left, 1.0))
            return dict(group.newest)

    def _absence(self, old: tuple[str, ...], max_age: float, timeout: float) -> str:
        reasons = [
            f"input `{name}`: {self._problems[name]}" for name in old if name in self._problems
        ]
        if reasons:
            return "; ".join(reasons)
        return (
            f"node `{self._node.node_id}`: no message of input {', '.join(old)} for {timeout:g} s"
            f" that was at most {max_age:g} s old"
        )

    def send(self, output: str, value: pa.Array, metadata: dict[str, Any]) -> None:
        if output in self.outputs and not self._stopped:
            self._node.send_output(output, value, metadata)

    def close(self) -> None:
        self._closing = True
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._node.close()


_open: dict[tuple[str | None, str | None], RobotSession] = {}
_lock = threading.Lock()


def acquire(node_id: str | None, dataflow: str | None = None) -> RobotSession:
    """Return the session of a node; None: of the node as which a dataflow started this process."""
    with _lock:
        session = _open.get((node_id, dataflow))
        if session is None:
            node = Node(node_id, dataflow=dataflow) if node_id else Node()
            session = _open[node_id, dataflow] = RobotSession(node)
        session.users += 1
        return session


def release(node_id: str | None, dataflow: str | None = None) -> None:
    """Give a session back; the last one closes its node."""
    with _lock:
        session = _open[node_id, dataflow]
        session.users -= 1
        if not session.users:
            del _open[node_id, dataflow]
            session.close()
