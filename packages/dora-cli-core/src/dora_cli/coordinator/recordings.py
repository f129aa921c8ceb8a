"""Recordings of a cluster, as its daemons report them, and plans of new ones."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.recorders import RecordingLimits, RecordingPlan
from dora_config.protocol.recordings import RecorderReplies, RecordingState, RecordingStates


@dataclass(slots=True)
class FleetRecording:
    """One recording, with its state on each machine that reported it."""

    recording: str
    states: dict[str, RecordingState] = field(default_factory=dict)

    @property
    def _any(self) -> RecordingState:
        return next(iter(self.states.values()))

    @property
    def dataflow_id(self) -> str:
        return self._any.dataflow_id

    @property
    def label(self) -> str:
        return self._any.name or self.dataflow_id

    @property
    def started(self) -> float:
        """Unix time, by the clock that is ahead of the others."""
        return max(state.started for state in self.states.values())

    @property
    def machines(self) -> set[str]:
        """All machines that take part, also those that did not report."""
        named = {name for state in self.states.values() for name in state.machines}
        return named | self.states.keys()

    @property
    def phase(self) -> str:
        phases = {state.phase for state in self.states.values()}
        return next((one for one in ("recording", "waiting") if one in phases), "ended")

    @property
    def nbytes(self) -> int:
        return sum(file.size for state in self.states.values() for file in state.files)

    @property
    def recorded(self) -> dict[str, int]:
        return _sums(state.recorded for state in self.states.values())

    @property
    def lost(self) -> dict[str, int]:
        return _sums(state.lost for state in self.states.values())

    @property
    def problems(self) -> list[str]:
        """Sentences, each with its machine."""
        return [f"{name}: {text}" for name, one in self.states.items() for text in one.problems]


def _sums(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for count in counts:
        total.update(count)
    return total


def collect(replies: RecorderReplies) -> list[FleetRecording]:
    """Return the recordings in replies of daemons, the newest last."""
    found: dict[str, FleetRecording] = {}
    for answer in replies.replies:
        if not isinstance(answer.reply, RecordingStates):
            continue
        for state in answer.reply.recordings:
            recording = found.setdefault(state.recording, FleetRecording(state.recording))
            recording.states[answer.daemon] = state
    return sorted(found.values(), key=lambda one: one.started)


def new_plan(
    spec: DataflowSpec,
    patterns: tuple[str, ...],
    limits: RecordingLimits,
    *,
    dataflow_id: str = "",
    machines: tuple[str, ...] = (),
) -> RecordingPlan:
    """Return the plan of a new recording on the machines of a cluster."""
    from dora_config.dataflow.expand import expand_dataflow

    return RecordingPlan(
        recording=str(uuid.uuid4()),
        dataflow_id=dataflow_id,
        name=spec.name,
        patterns=patterns,
        limits=limits,
        dataflow=expand_dataflow(spec.resolved),
        working_dir=spec.origin.directory,
        machines=machines,
        started=time.time(),
    )
