"""A dataflow for faults, two senders on the robot and a sink on the station, and its checks.

``source`` sends over a backpressure edge, ``camera`` over a drop_oldest edge, both to ``sink``.
Each process of a node is a *life*; a message carries the life of its sender and its number in it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from support.fleets.daemons import is_running
from support.workspace import Workspace

NODES = {"source": "robot", "camera": "robot", "sink": "station"}
"""Nodes and their machines."""
INPUTS = {"steady": "source", "newest": "camera"}
"""Inputs of the sink and their senders."""
QUEUE = 10
_LAST_LINES = 200
"""Bytes at the end of a file that contain a complete line."""

_LIFE = """
    import os
    import sys
    import time
    from pathlib import Path
    from dora import Node

    def held(phase):
        while Path(f"hold-{phase}").exists():
            time.sleep(0.01)

    name = sys.argv[1]
    life = time.time_ns()
    Path("alive", f"{name}-{os.getpid()}").touch()
    held("prepare")
    node = Node()
"""
_SENDER = """
    sent = os.open(f"sent-{name}-{life}", os.O_WRONLY | os.O_CREAT, 0o600)
    number = 0
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("number", f"{life} {number}".encode())
            os.pwrite(sent, f"{number:10}".encode(), 0)
            number += 1
"""
_SINK = """
    files = {
        name: os.open(f"got-{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for name in ("steady", "newest")
    }
    for event in node:
        if event["type"] == "INPUT":
            text = bytes(event["value"].to_pylist()).decode()
            os.write(files[event["id"]], f"{life} {text}\\n".encode())
            time.sleep(0.002)
    held("stop")
"""


def write(workspace: Workspace) -> Path:
    """Write the node scripts and the dataflow file."""
    workspace.node("sender", _LIFE + _SENDER)
    workspace.node("sink", _LIFE + _SINK)
    (workspace.path / "alive").mkdir(exist_ok=True)
    policies = {"steady": "backpressure", "newest": "drop_oldest"}
    inputs = {
        name: {"source": f"{sender}/number", "queue_size": QUEUE, "queue_policy": policies[name]}
        for name, sender in INPUTS.items()
    }
    senders = [
        {
            "id": name,
            "path": "sender.py",
            "args": name,
            "inputs": {"tick": "dora/timer/millis/10"},
            "outputs": ["number"],
            "restart_policy": "on-failure",
            "max_restarts": 0,
            "deploy": {"machine": NODES[name]},
        }
        for name in ("source", "camera")
    ]
    sink = {
        "id": "sink",
        "path": "sink.py",
        "args": "sink",
        "inputs": inputs,
        "restart_policy": "on-failure",
        "max_restarts": 0,
        "deploy": {"machine": NODES["sink"]},
    }
    return workspace.dataflow({"nodes": [*senders, sink]})


@dataclass(frozen=True, order=True)
class Number:
    """One message: ``number`` of the sender process started at ``life`` (Unix nanoseconds)."""

    life: int
    number: int


@dataclass(frozen=True)
class Got:
    """A message and the life of the sink that received it."""

    reader: int
    what: Number


class Flow:
    def __init__(self, workspace: Workspace) -> None:
        self.path = workspace.path
        self.file = write(workspace)
        self._checked = dict.fromkeys(INPUTS, 0)

    def hold(self, phase: str) -> None:
        """Hold nodes: "prepare": before they create their Node; "stop": the sink, at its end."""
        (self.path / f"hold-{phase}").touch()

    def release(self) -> None:
        for phase in ("prepare", "stop"):
            (self.path / f"hold-{phase}").unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all messages; no node may run."""
        self._checked = dict.fromkeys(INPUTS, 0)
        for pattern in ("sent-*", "got-*"):
            for path in self.path.glob(pattern):
                path.unlink()

    def living(self) -> dict[str, list[int]]:
        """Return the ids of each node's running processes."""
        found: dict[str, list[int]] = {name: [] for name in NODES}
        for path in (self.path / "alive").iterdir():
            name, _, pid = path.name.rpartition("-")
            if is_running(int(pid)):
                found[name].append(int(pid))
            else:
                path.unlink(missing_ok=True)
        return found

    def sent(self, input_id: str) -> Number:
        """Return the last message of an input's sender."""
        return max(self._sent(input_id), default=Number(0, -1))

    def _sent(self, input_id: str) -> list[Number]:
        """Return the last message of each life of a sender."""
        found = []
        for path in self.path.glob(f"sent-{INPUTS[input_id]}-*"):
            text = path.read_text().strip()
            found.append(Number(int(path.name.rpartition("-")[2]), int(text or -1)))
        return found

    def got(self, input_id: str) -> list[Got]:
        """Return all messages that the sink has received at an input, in order."""
        with suppress(FileNotFoundError):
            lines = (self.path / f"got-{input_id}").read_text().splitlines()
            return [Got(int(a), Number(int(b), int(c))) for a, b, c in map(str.split, lines)]
        return []

    def last(self, input_id: str) -> Number:
        """Return the last message at an input."""
        with suppress(FileNotFoundError), (self.path / f"got-{input_id}").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_LINES))
            *_, last = [b"", *file.read().split(b"\n")[:-1]]
            if last:
                _, life, number = last.split()
                return Number(int(life), int(number))
        return Number(0, -1)

    def check(self, *, lost: int = 0, again: int = 0, source_lost: bool = False) -> list[str]:
        """Return the problems of all messages since the last check.

        ``lost``: messages that may be lost with a process of the sink or with its queues.
        ``again``: messages that its next process may receive again, because the link that died
        with the sink's runner had not acknowledged them.
        ``source_lost``: the last messages of a sender may be lost with its runner.
        """
        problems = []
        for input_id in INPUTS:
            got = self.got(input_id)
            newer = got[max(0, self._checked[input_id] - 1) :]
            self._checked[input_id] = len(got)
            problems += _disorder(input_id, newer, again)
            if input_id == "steady":
                problems += _gaps(newer, lost)
                problems += [] if source_lost else self._unfinished_lives(newer)
        return problems

    def _unfinished_lives(self, got: list[Got]) -> list[str]:
        """Return lives of the source whose last messages were lost before the next life."""
        last = {number.life: number for number in self._sent("steady")}
        return [
            f"steady: the last message received of a life is {before.what}, the last sent is {sent}"
            for before, after in pairwise(got)
            if before.what.life != after.what.life
            and (sent := last.get(before.what.life, before.what)) > before.what
        ]


def _disorder(input_id: str, got: list[Got], again: int) -> list[str]:
    problems = []
    for before, after in pairwise(got):
        allowed = again if before.reader != after.reader else 0
        same = before.what.life == after.what.life
        if after.what <= before.what and not (
            same and before.what.number - after.what.number < allowed
        ):
            problems.append(f"{input_id}: {after} came after {before}")
    return problems


def _gaps(got: list[Got], lost: int) -> list[str]:
    problems = []
    for before, after in pairwise(got):
        same = before.what.life == after.what.life
        missing = after.what.number - (before.what.number + 1 if same else 0)
        allowed = lost if before.reader != after.reader else 0
        if missing > allowed:
            problems.append(f"steady: {missing} missing between {before} and {after}")
    return problems
