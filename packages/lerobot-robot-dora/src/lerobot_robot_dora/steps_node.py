"""The node `dora-lerobot-steps`: sends the step of a policy's newest chunk that is due."""

from __future__ import annotations

import argparse
import sys
import time

import pyarrow as pa

from dora_node_api import Node
from lerobot_robot_dora.chunks import Chunk, Steps
from lerobot_robot_dora.events import Event, Warnings, batches, newest
from lerobot_robot_dora.messages import OBSERVED_AT, MessageUnusable, Metadata, array, names

TICK, CHUNK, ACTION = "tick", "chunk", "action"
PATIENCE_NS = 1_000_000_000
"""Nanoseconds without chunks, also after the start, until lists show that."""


def read_chunk(value: pa.Array, metadata: Metadata) -> Chunk:
    """Return the chunk of a message. Raises MessageUnusable."""
    kind = value.type
    if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
        raise MessageUnusable(
            f"the message is {kind}; expected a FixedSizeList of floats, one per step"
        )
    if value.null_count or value.flatten().null_count:
        raise MessageUnusable("the message has nulls")
    observed, dt = metadata.get(OBSERVED_AT), metadata.get("dt")
    if type(observed) is not int:
        raise MessageUnusable(
            f"the metadata has no whole number `{OBSERVED_AT}`; copy it unchanged from the state"
        )
    if not isinstance(dt, int | float):
        raise MessageUnusable("the metadata has no number `dt`, the seconds between two steps")
    return Chunk(
        names=names(metadata),
        steps=tuple(tuple(step) for step in value.to_pylist()),
        dt=round(dt * 1e9),
        observed=observed,
        policy=str(metadata.get("policy", "")),
        number=int(metadata.get("chunk", 0)),
    )


class StepsNode:
    """Connects the queue of steps to its node."""

    def __init__(self, node: Node, hold_after: float) -> None:
        self._node = node
        self._steps = Steps(round(hold_after * 1e9))
        self._warnings = Warnings(node)
        self._sent_at = time.monotonic_ns()
        self._waits = False

    def handle(self, batch: list[Event]) -> None:
        events = newest(batch)
        if (event := events.get(CHUNK)) is not None:
            try:
                chunk = read_chunk(event["value"], event["metadata"])
                self._steps.add(chunk, time.monotonic_ns())
            except MessageUnusable as refused:
                self._warnings.warn(CHUNK, str(refused))
        if TICK in events:
            self._send()

    def _send(self) -> None:
        now = time.monotonic_ns()
        step = self._steps.due(now)
        if step is None:
            if not self._waits and now - self._sent_at > PATIENCE_NS:
                self._waits = True
                self._node.report_waiting(f"sends no action: {self._steps.why_none(now)}")
            return
        self._sent_at = now
        if self._waits:
            self._waits = False
            self._node.report_waiting(None)
        chunk = step.chunk
        metadata = {
            "names": list(chunk.names),
            "policy": chunk.policy,
            "chunk": chunk.number,
            "step": step.index,
        }
        self._node.send_output(ACTION, array(step.values), metadata)


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dora-lerobot-steps",
        description=(
            "Sends the step of a policy's newest chunk that is due, at each tick; started by a"
            " dataflow, on the machine of the robot."
        ),
    )
    parser.add_argument(
        "--hold-after",
        metavar="SECONDS",
        type=float,
        default=0.2,
        help="time without a new chunk after which no step is sent; default 0.2",
    )
    return parser.parse_args(arguments)


def run(node: Node, arguments: list[str]) -> None:
    """Send steps until the node stops."""
    steps = StepsNode(node, options(arguments).hold_after)
    for batch in batches(node):
        steps.handle(batch)


def main() -> None:
    """The script `dora-lerobot-steps`."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        options(arguments)
    run(Node(), arguments)


if __name__ == "__main__":
    main()
