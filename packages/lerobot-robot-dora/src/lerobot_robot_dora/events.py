"""Waiting events, warnings that come once, and checks of installed packages, for all nodes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dora_node_api import Node

Event = Mapping[str, Any]

_MAX_EVENTS = 100
"""Most events in a batch."""


def batches(node: Node) -> Iterator[list[Event]]:
    """Yield the waiting events as one batch, until the node is stopped."""
    for event in node:
        batch: list[Event] = [event]
        while len(batch) < _MAX_EVENTS and (more := node.try_recv()) is not None:
            batch.append(more)
        yield batch
        if any(one["type"] == "STOP" for one in batch):
            return


def newest(batch: list[Event]) -> dict[str, Event]:
    """Return the newest message of each input."""
    return {event["id"]: event for event in batch if event["type"] == "INPUT"}


class Warnings:
    """Warns once of each problem of each input."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: set[tuple[str, str]] = set()

    def warn(self, name: str, problem: str) -> None:
        kind = (name, "".join(letter for letter in problem if letter not in "0123456789.e-+"))
        if kind not in self._known:
            self._known.add(kind)
            self._node.log_warn(f"input `{name}`: {problem}; ignored (reported once)")


@contextmanager
def lerobot_needed(node: str) -> Iterator[None]:
    """End the process with what to install if LeRobot cannot be imported."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("lerobot", "torch"):
            raise
        sys.exit(f'{node} needs LeRobot and Python 3.12 or newer: pip install "lerobot~=0.6.1"')
