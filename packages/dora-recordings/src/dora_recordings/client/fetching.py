"""Copies the files of a recording from the machines, and merges them into one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dora_cli import output
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.recordings import FleetRecording
from dora_config.access import private_dir
from dora_config.atomic_write import write_file
from dora_config.errors import InvalidId
from dora_config.ids import parse_machine_id
from dora_config.protocol.recordings import (
    FILE_NAME,
    DescribeRecording,
    RecordingDescribed,
    RecordingState,
    RecordingStates,
    RemoveRecording,
)
from dora_config.protocol.rest import paths
from dora_config.transfers import DownloadFailed, Downloads, PlainFile
from dora_recordings.client.fleet import (
    SHORT_ID,
    RecordingError,
    call_one,
    write_report,
)

ID, MACHINES, STATE, DESCRIBED = "recording", "machines", "state.json", "described.json"


@dataclass(frozen=True, slots=True)
class FetchedMachine:
    """A machine whose files were all fetched."""

    machine: str
    folder: Path
    state: RecordingState
    described: RecordingDescribed

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(self.folder / file.name for file in self.state.files)


class PartialFetch:
    """Folder beside the target with the files that were fetched so far."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".parts")

    def check(self, recording: str) -> None:
        """Raise RecordingError if the folder belongs to another recording."""
        marker = self.path / ID
        if marker.exists() and marker.read_text() != recording:
            raise RecordingError(
                f"{self.path} holds parts of recording {marker.read_text()[:SHORT_ID]}; choose"
                " another file with -o, or remove that folder"
            )

    def create(self, recording: str) -> None:
        """Create or reuse the folder; raises OSError."""
        private_dir(self.path)
        write_file(self.path / ID, recording)

    def fetched(self) -> dict[str, FetchedMachine]:
        """Return the machines whose files were all fetched."""
        found = {}
        for state in self.path.glob(f"{MACHINES}/*/{STATE}"):
            machine = state.parent.name
            described = (state.parent / DESCRIBED).read_bytes()
            found[machine] = FetchedMachine(
                machine,
                state.parent,
                RecordingState.model_validate_json(state.read_bytes()),
                RecordingDescribed.model_validate_json(described),
            )
        return found

    def fetch(self, client: CoordinatorClient, machine: str, state: RecordingState) -> None:
        """Copy the missing parts of a machine's files.

        Raises RecordingError and CoordinatorLost.
        """
        _check_names(machine, state)
        folder = self.path / MACHINES / machine
        folder.mkdir(parents=True, exist_ok=True)
        described = call_one(
            client, machine, DescribeRecording(recording=state.recording), RecordingDescribed
        )
        write_file(folder / DESCRIBED, described.model_dump_json())
        (folder / STATE).unlink(missing_ok=True)  # until all files are here
        with Downloads(client.endpoint) as downloads:
            for file in state.files:
                path = folder / file.name
                _copy(downloads, machine, state.recording, path, file.size)
        write_file(folder / STATE, state.model_dump_json())

    def remove(self) -> None:
        shutil.rmtree(self.path)


def _check_names(machine: str, state: RecordingState) -> None:
    """Raise RecordingError for names from a daemon that lead outside of the folder."""
    try:
        parse_machine_id(machine)
    except InvalidId as error:
        raise RecordingError(f"cannot store the recording of a machine: {error}") from error
    for file in state.files:
        if not re.fullmatch(FILE_NAME, file.name):
            raise RecordingError(
                f"{machine}: {file.name!r} is not a valid name of a recorded file; nothing was"
                " fetched from there"
            )


def _copy(downloads: Downloads, machine: str, recording: str, path: Path, size: int) -> None:
    there = path.stat().st_size if path.exists() else 0
    if there > size:
        raise RecordingError(f"{path} is longer than on {machine}; remove it")
    begun = f", continued at {_megabytes(there)}" if there else ""
    if there < size:
        output.remark(f"{machine}: {path.name} ({_megabytes(size)}{begun})")
    url = paths.url(paths.RECORDINGS, recording, machine, path.name)
    try:
        downloads.download(url, PlainFile(path, size))
    except DownloadFailed as error:
        raise RecordingError(f"{error}; run the command again to continue") from error


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def check_target(target: Path, recording: str) -> None:
    """Raise RecordingError unless the recording can be fetched into the file."""
    if target.exists():
        raise RecordingError(f"{target} exists; choose another file with -o")
    if not target.parent.is_dir():
        raise RecordingError(f"{target.parent} is not a folder; create it, or choose another file")
    PartialFetch(target).check(recording)


def fetch(
    client: CoordinatorClient, recording: FleetRecording, target: Path, *, allow_missing: bool
) -> list[FetchedMachine]:
    """Copy all files beside ``target``; return the machines in order.

    ``allow_missing``: leave out machines that are not connected. Raises RecordingError, OSError and
    CoordinatorLost; another call continues.
    """
    check_target(target, recording.recording)
    for machine, state in recording.states.items():
        if state.phase != "ended":
            raise RecordingError(
                f"{machine} still records; end it with `dora recording stop"
                f" {recording.recording[:SHORT_ID]}`"
            )
    parts = PartialFetch(target)
    parts.create(recording.recording)
    done = parts.fetched()
    for machine, state in recording.states.items():
        # Nodes that were started again since then have recorded more.
        if machine not in done or done[machine].state != state:
            parts.fetch(client, machine, state)
    done = parts.fetched()
    missing = sorted(recording.machines - done.keys())
    if missing and not allow_missing:
        raise RecordingError(
            f"no recording of {', '.join(missing)}, which may not be connected; what was fetched is"
            f" in {parts.path}. Run the command again when they are, or with --allow-missing"
        )
    for machine in missing:
        output.warn(f"{machine} is left out")
    return [done[machine] for machine in sorted(done)]


def merge_fetched(fetched: Sequence[FetchedMachine], target: Path) -> tuple[bool, bool]:
    """Write ``target`` and remove the parts.

    Prints what was recorded; returns whether all of it is there, and whether the files of the
    machines are intact. Raises OSError.
    """
    from dora_recordings.merging import MachineFiles, merge

    whole = FleetRecording(fetched[0].state.recording)
    whole.states.update({one.machine: one.state for one in fetched})
    parts = [MachineFiles(one.machine, one.files, one.described.clock) for one in fetched]
    merged = merge(parts, fetched[0].described.plan, whole.lost, target)
    for machine in merged.uncorrected:
        output.warn(f"{machine}: no clock samples; its times are of its own clock")
    PartialFetch(target).remove()
    lost = dict(whole.lost)
    for topic, count in whole.recorded.items():
        # A killed recorder may have reported messages that it had not written.
        unwritten = count - merged.recorded.get(topic, 0)
        if unwritten > 0:
            lost[topic] = lost.get(topic, 0) + unwritten
    recorded = dict.fromkeys(whole.recorded, 0) | merged.recorded
    problems = [*whole.problems, *merged.damage]
    complete = write_report(recorded, lost, (str(target),), problems)
    return complete, not merged.damage


def remove_from_machines(client: CoordinatorClient, recording: FleetRecording) -> None:
    """Remove the files that were fetched from the machines; raises RecordingError."""
    for machine, state in recording.states.items():
        request = RemoveRecording(recording=recording.recording, files=state.files)
        call_one(client, machine, request, RecordingStates)
