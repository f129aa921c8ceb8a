"""The nodes of a flow: those with a process, and the sources in place of others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.dataflow.sources import LogSource
from dora_config.protocol.runner_events import passes
from dora_node_api.protocol import lockstep as wire
from dora_node_api.protocol.messages import NodeConfig
from dora_node_api.protocol.session import Session
from dora_testing.children import Child
from dora_testing.messages import Queued
from dora_testing.queues import InputQueue
from dora_testing.sources import Emission, Source

Answer = tuple[Any, bytes]
NOTHING: Answer = (None, b"")


@dataclass(eq=False)
class Participant:
    """A node: its queues, its process if it runs, and what the process waits for."""

    spec: ResolvedNode
    place: int
    """Position in the dataflow file."""
    queues: dict[str, InputQueue]
    source: Source | None = None
    emissions: Iterator[Emission] | None = None
    child: Child | None = None
    incarnation: int = 0
    session: Session | None = None
    running: bool = False
    """Whether the process runs; otherwise it waits for the answer to `request`."""
    request: tuple[list[Any], bytes] | None = None
    answer: Answer | None = None
    """Answer for the node at `check_at`, while it sleeps or is busy with an event."""
    check_at: int | None = None
    """Earliest time at which it may continue; None: it waits for an event."""
    check_order: int = 0
    cost_ns: int = 0
    blocked_ns: int | None = None
    """Time since when the node waits for room to send; None: it does not wait."""
    started_ns: int = 0
    """Time of the node's Go."""
    state: tuple[str, bytes] | None = None
    """State that the process has saved for the next one."""
    lines: list[str] = field(default_factory=list)
    now: int = 0
    clock_ns: int = 0
    """Nanoseconds by which the clock of its machine is ahead."""

    @property
    def id(self) -> str:
        return self.spec.id

    def connect(self, config: NodeConfig, now: int) -> Session:
        """Make the event stream of a new process; messages that wait stay."""
        session = self.session = Session(config, wall_time=self._wall_time)
        for entry in config.inputs:
            queue = self.queues.get(entry.id)
            if queue is None:
                session.add_input(entry, now=now)
            else:
                session.add_input(entry, queue.take, queue.ready, now=now)
        return session

    def _wall_time(self, ago: int) -> int:
        """Return the CLOCK_REALTIME of a tick."""
        return wire.wall_ns(self.now - ago) + self.clock_ns

    def next_answer(self, now: int) -> Answer | None:
        """Return the next event for the process; None if there is none."""
        session = self.session
        if session is None:
            return None
        self.now = now
        event = session.next_event(now)
        if event is None:
            return NOTHING if session.ended else None
        values: dict[str, Any] = dict(dict.items(event))
        metadata = values.pop("metadata", None)
        if isinstance(values.get("value"), Queued):
            return values, values.pop("value").block
        if metadata is not None:
            values["stamp"] = metadata["timestamp"]
        return values, b""

    def log_inputs(self, node: str, level: str) -> list[InputQueue]:
        """Return the queues of inputs that read log entries of another node."""
        found = []
        for name, wanted in self.spec.inputs.items():
            source = wanted.source
            if not isinstance(source, LogSource) or node == self.id:
                continue
            if source.node in (None, node) and passes(level, source.level):
                found.append(self.queues[name])
        return found

    def cost_of(self, answer: Answer) -> int:
        """Return how long the node is busy with an answer, in nanoseconds."""
        is_input = answer[0] is not None and answer[0]["type"] == "INPUT"
        return self.cost_ns if is_input else 0

    def next_time(self) -> int | None:
        """Return when there is an event although nothing arrives."""
        return None if self.session is None else self.session.deadline()
