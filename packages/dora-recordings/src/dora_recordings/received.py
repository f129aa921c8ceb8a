"""Events that a node received, in their order, and messages that it sent, from a recording."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyarrow import Array

from dora_config.dataflow.loader import LoadedDataflow, parse_dataflow
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.dataflow.sources import OutputSource, TimerSource
from dora_config.yaml.writer import dump_yaml
from dora_node_api.backends import event_notes as notes
from dora_node_api.data.metadata import decode_metadata
from dora_recordings import arrow_messages as arrow
from dora_recordings.reading import Recording, UnreadableRecording, damage_of, merged

WINDOW_NS = 10_000_000_000
"""Nanoseconds by which a message may follow its event, by the clocks of two nodes."""


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """One event of a node, or the start of its process."""

    kind: str
    taken: int
    """Time of the event by CLOCK_REALTIME of the node's machine."""
    input: str = ""
    identity: int | str = 0
    """Number or text that identifies a message among those of its input."""
    event: Mapping[str, Any] | None = None
    times: int = 1

    def __str__(self) -> str:
        return f"{self.kind} `{self.input}`" if self.input else self.kind


@dataclass(frozen=True, slots=True)
class ReplayMessage:
    """A message of a recording."""

    output: str
    """`node/output`."""
    value: Array
    metadata: dict[str, Any]
    """Metadata; its times are of the sender's clock, as `publish_time` is."""
    log_time: int
    publish_time: int
    ahead: int
    """Nanoseconds by which the sender's clock is ahead of the recording's clock."""
    notes: list[Any] | None

    @property
    def identity(self) -> int | str:
        """Identity of the message in the events of its receivers."""
        stamp = self.metadata.get("timestamp")
        if stamp is None:
            return self.publish_time // 1000 * 1000
        return notes.identity({"timestamp": stamp})


class Recorded:
    """The files of a recording."""

    def __init__(self, files: Sequence[Path | str]) -> None:
        """Open the files. Raises UnreadableRecording."""
        self.files = [Path(file) for file in files]
        try:
            self.recordings = [Recording(file) for file in self.files]
        except OSError as error:
            raise UnreadableRecording(f"{error.filename}: {error.strerror}") from None
        self._noted: dict[str, bool] = {}
        self.facts = next(
            (one.facts for one in self.recordings if one.facts.dataflow), self.recordings[0].facts
        )

    def load(self, folder: Path) -> LoadedDataflow:
        """Return the recorded dataflow; `folder`: of its paths, if its own does not exist here."""
        if self.facts.dataflow is None:
            raise UnreadableRecording(f"{self.files[0]} has no dataflow; `dora record` writes one")
        own = Path(self.facts.source.get("working_dir") or ".")
        base = (own if own.is_dir() else folder).absolute()
        return parse_dataflow(dump_yaml(self.facts.dataflow), path=base / "replay.yml")

    def lost(self) -> list[str]:
        """Return the gaps of the recording, a sentence each."""
        counts = Counter[str]()
        for recording in self.recordings:
            counts.update(recording.facts.lost)
        return [
            *(f"{n} messages of {name} were not recorded" for name, n in counts.items() if n),
            *damage_of(self.recordings),
        ]

    @cached_property
    def first(self) -> arrow.RecordedMessage:
        """The first message. Raises UnreadableRecording if there is none."""
        found = next(merged(self.recordings), None)
        if found is None:
            raise UnreadableRecording(f"{self.files[0]} has no messages")
        return found

    @cached_property
    def topics(self) -> frozenset[str]:
        """The outputs of which there are messages."""
        return frozenset(message.topic for message in merged(self.recordings))

    def messages(self, outputs: Collection[str]) -> Iterator[ReplayMessage]:
        """Yield the messages of these outputs in the order they were sent."""
        for message in merged(self.recordings, outputs):
            value, custom = arrow.decode_all(message.schema, message.data)
            own = decode_metadata(custom.get(arrow.OWN_TIMES_KEY, b""))
            sent = own.pop("publish_time", message.publish_time)
            yield ReplayMessage(
                message.topic,
                value,
                decode_metadata(custom.get(arrow.METADATA_KEY, b"")) | own,
                message.log_time,
                sent,
                sent - message.publish_time,
                json.loads(custom[arrow.NOTES_KEY]) if arrow.NOTES_KEY in custom else None,
            )

    # --- one node --------------------------------------------------------------------------------

    def sent(self, spec: ResolvedNode, output: str | None = None) -> Iterator[ReplayMessage]:
        """Yield the messages of a node, without those that `dora topic pub` sent on its outputs."""
        noted = self.is_noted(spec)
        topics = [f"{spec.id}/{one}" for one in spec.outputs] if output is None else [output]
        return (one for one in self.messages(topics) if not noted or one.notes is not None)

    def is_noted(self, spec: ResolvedNode) -> bool:
        """Return whether the order of its events was recorded."""
        if spec.id not in self._noted:
            found = self.messages([f"{spec.id}/{output}" for output in spec.outputs])
            self._noted[spec.id] = any(message.notes is not None for message in found)
        return self._noted[spec.id]

    def ahead(self, spec: ResolvedNode) -> int:
        """Return the nanoseconds by which the clock of the node's events is ahead of the
        recording's clock."""
        return next((one.ahead for one in self.sent(spec)), 0) if self.is_noted(spec) else 0

    def steps(self, spec: ResolvedNode) -> Iterator[RecordedStep]:
        """Yield the events of a node, in the order in which it received them."""
        return self._noted_steps(spec) if self.is_noted(spec) else self._steps_by_time(spec)

    def gaps(self, spec: ResolvedNode) -> int:
        """Return the number of missing messages with notes."""
        missing = expected = 0
        for message in self.sent(spec):
            number, *events = message.notes or [expected]
            starts = bool(events) and events[0][0] == notes.START
            missing += max(0, number if starts else number - expected)
            expected = number + 1
        return missing

    def _noted_steps(self, spec: ResolvedNode) -> Iterator[RecordedStep]:
        for message in self.sent(spec):
            for kind, *rest in (message.notes or [0])[1:]:
                match kind:
                    case notes.START:
                        yield RecordedStep(kind, 0)
                    case notes.INPUT:
                        taken, name, identity = rest
                        yield RecordedStep(kind, taken, name, identity)
                    case notes.EMPTY:
                        yield RecordedStep(kind, rest[0], times=rest[1])
                    case _:
                        yield RecordedStep(kind, rest[0], event=rest[1])

    def _steps_by_time(self, spec: ResolvedNode) -> Iterator[RecordedStep]:
        """Yield the inputs of a node by the time they were sent, and the ticks of its timers."""
        yield RecordedStep(notes.START, 0)
        readers: dict[str, list[str]] = defaultdict(list)
        ticks: dict[str, tuple[int, int]] = {}
        for name, wanted in spec.inputs.items():
            if isinstance(wanted.source, OutputSource):
                readers[str(wanted.source)].append(name)
            elif isinstance(wanted.source, TimerSource):
                ticks[name] = self.first.log_time, wanted.source.interval_ns
        for message in self.messages(list(readers)):
            while due := min(((at, name) for name, (at, _) in ticks.items()), default=None):
                if due[0] > message.log_time:
                    break
                at, name = due
                ticks[name] = at + ticks[name][1], ticks[name][1]
                yield RecordedStep(notes.INPUT, at, name, at)
            for name in readers[message.output]:
                yield RecordedStep(notes.INPUT, message.log_time, name, message.identity)


class RecordedInputs:
    """Finds the message of each event of a node."""

    def __init__(self, recorded: Recorded, outputs: Collection[str], ahead: int) -> None:
        """`ahead`: nanoseconds by which the clock of the steps is ahead of the recording's."""
        self._window = WINDOW_NS - ahead
        self._messages = recorded.messages(outputs)
        self._waiting: dict[str, list[ReplayMessage]] = defaultdict(list)
        """Messages that were read before others, by output."""
        self._next: ReplayMessage | None = next(self._messages, None)

    def find(self, output: str, step: RecordedStep) -> ReplayMessage | None:
        """Return the message of an event; older ones of its output were dropped from the queue."""
        waiting = self._waiting[output]
        for place, message in enumerate(waiting):
            if message.identity == step.identity:
                del waiting[:place]  # the node may have several inputs with this output
                return message
        while self._next is not None and self._next.log_time <= step.taken + self._window:
            message, self._next = self._next, next(self._messages, None)
            self._waiting[message.output].append(message)
            if message.output == output and message.identity == step.identity:
                del waiting[:-1]
                return message
        return None
