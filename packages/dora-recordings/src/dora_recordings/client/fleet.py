"""Requests about the recordings of a cluster, and what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from dora_cli import output
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.recordings import FleetRecording, collect
from dora_cli.errors import CommandFailed
from dora_config.errors import DoraError
from dora_config.protocol.recordings import (
    CallRecorders,
    ListRecordings,
    RecorderReplies,
    RecorderReply,
    RecorderRequest,
    RemoveRecording,
    StopRecording,
)

T = TypeVar("T", bound=RecorderReply)

SHORT_ID = 8
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


class RecordingError(DoraError):
    """A recording cannot be started, found or fetched."""


def call(
    client: CoordinatorClient, request: RecorderRequest, daemons: Sequence[str] = ()
) -> RecorderReplies:
    """Send a request to daemons, by default to all that are connected."""
    message = CallRecorders(daemons=tuple(daemons), request=request)
    return client.request(message)


def call_one(
    client: CoordinatorClient, daemon: str, request: RecorderRequest, expected: type[T]
) -> T:
    """Return the reply of one daemon; raises RecordingError."""
    replies = call(client, request, (daemon,))
    for problem in replies.problems.values():
        raise RecordingError(problem)
    (answer,) = replies.replies
    if not isinstance(answer.reply, expected):
        raise RecordingError(f'daemon "{daemon}": unexpected reply {answer.reply.kind!r}')
    return answer.reply


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
    known = ", ".join(f"{one.recording[:SHORT_ID]} ({one.label})" for one in recordings) or "none"
    wanted = "" if text is None else f' "{text}"'
    raise RecordingError(f"the connected machines have no recording{wanted}; they have: {known}")


def find(client: CoordinatorClient, text: str | None) -> FleetRecording:
    """Return the chosen recording of the connected machines; raises RecordingError."""
    return choose(collect(call(client, ListRecordings())), text)


def end_recording(
    client: CoordinatorClient,
    text: str | None,
    kind: type[StopRecording | RemoveRecording],
    done: str,
) -> None:
    """Stop or remove a recording on its machines, and print which machines have ``done`` it.

    Prints problems and raises CommandFailed if there are any.
    """
    found = find(client, text)
    replies = call(client, kind(recording=found.recording), sorted(found.machines))
    for answer in sorted(replies.replies, key=lambda one: one.daemon):
        output.write(f"{answer.daemon}: {done} recording {found.recording[:SHORT_ID]}")
    for problem in replies.problems.values():
        output.failure(problem)
    if replies.problems:
        raise CommandFailed
