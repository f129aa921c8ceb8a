"""Recordings of a cluster, as the coordinator's daemons report them, and what was recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from dora_cli import output
from dora_cli.coordinator.client import Client
from dora_cli.errors import CommandFailed
from dora_config.errors import DoraError
from dora_config.protocol.recordings import (
    CallRecorders,
    ListRecordings,
    RecorderReplies,
    RecorderReply,
    RecorderRequest,
    RecordingState,
    RecordingStates,
    RemoveRecording,
    StopRecording,
)

if TYPE_CHECKING:
    from dora_daemon.recording.reading import Recording

T = TypeVar("T", bound=RecorderReply)

SHORT = 8
"""Characters of a recording's id that commands print."""


COLUMNS = ("TOPIC", "RECORDED", "NOT RECORDED")


def write_report(
    recorded: Mapping[str, int],
    lost: Mapping[str, int],
    files: Sequence[str] = (),
    problems: Sequence[str] = (),
) -> bool:
    """Print what was recorded; return whether all of it was."""
    topics = sorted({*recorded, *lost})
    if topics:
        rows = [(name, recorded.get(name, 0), lost.get(name, 0)) for name in topics]
        output.table(COLUMNS, rows)
    for file in files:
        output.write(f"wrote {file}")
    missing = sum(lost.values())
    if missing:
        output.warn(f"{output.counted(missing, 'message')} not recorded")
    for problem in problems:
        output.failure(problem)
    return not missing and not problems


def damage_of(recordings: Iterable[Recording]) -> list[str]:
    """Return what could not be read so far, each with its file."""
    return [f"{one.path} is damaged: {damage}" for one in recordings for damage in one.damage]


class RecordingError(DoraError):
    """A recording cannot be started, found or fetched."""


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


def call(client: Client, request: RecorderRequest, daemons: Sequence[str] = ()) -> RecorderReplies:
    """Send a request to daemons, by default to all that are connected."""
    message = CallRecorders(daemons=tuple(daemons), request=request)
    return client.request(message)


def call_one(client: Client, daemon: str, request: RecorderRequest, expected: type[T]) -> T:
    """Return the reply of one daemon; raises RecordingError."""
    replies = call(client, request, (daemon,))
    for problem in replies.problems.values():
        raise RecordingError(problem)
    (answer,) = replies.replies
    if not isinstance(answer.reply, expected):
        raise RecordingError(f'daemon "{daemon}": unexpected reply {answer.reply.kind!r}')
    return answer.reply


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


def choose(recordings: Sequence[FleetRecording], text: str | None) -> FleetRecording:
    """Return the newest recording, or the newest that ``text`` names.

    ``text``: name or UUID of its dataflow, else the start of its id. Raises RecordingError.
    """
    if text is None:
        named = list(recordings)
    else:
        named = [one for one in recordings if text in (one.label, one.dataflow_id)]
    if named:
        return named[-1]
    fitting = [one for one in recordings if text is not None and one.recording.startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        ids = ", ".join(one.recording for one in fitting)
        raise RecordingError(f'"{text}" is the start of {len(fitting)} ids: {ids}')
    known = ", ".join(f"{one.recording[:SHORT]} ({one.label})" for one in recordings) or "none"
    wanted = "" if text is None else f' "{text}"'
    raise RecordingError(f"the connected machines have no recording{wanted}; they have: {known}")


def find(client: Client, text: str | None) -> FleetRecording:
    """Return the chosen recording of the connected machines; raises RecordingError."""
    return choose(collect(call(client, ListRecordings())), text)


def end_recording(
    client: Client, text: str | None, kind: type[StopRecording | RemoveRecording], done: str
) -> None:
    """Stop or remove a recording on its machines and print which have ``done`` so.

    Prints problems and raises CommandFailed if there are any.
    """
    found = find(client, text)
    replies = call(client, kind(recording=found.recording), sorted(found.machines))
    for answer in sorted(replies.replies, key=lambda one: one.daemon):
        output.write(f"{answer.daemon}: {done} recording {found.recording[:SHORT]}")
    for problem in replies.problems.values():
        output.failure(problem)
    if replies.problems:
        raise CommandFailed
