"""Recorder processes of this machine; they outlive the daemon and are found again on disk."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from dora_config.access import Endpoint
from dora_config.control_plane import ControlConnection
from dora_config.errors import DoraError, error_text, os_error_text
from dora_config.process_identity import boot_id
from dora_config.protocol import recordings
from dora_config.protocol.daemon import HeartbeatAck
from dora_config.protocol.recorders import RecordingPlan, RecordingRequest
from dora_config.transfers import TIMEOUT, send_file
from dora_daemon.agent.events import RecorderSettled, RecordingRequested
from dora_daemon.agent.records import PartRecord
from dora_daemon.daemon_threads import run_in_daemon_thread
from dora_daemon.inspection.process import SideProcess
from dora_recordings import RECORDER_MODULE
from dora_recordings.recorders.folder import RecordingFolder, RecordingRefused

START_SECONDS = 60.0
"""Seconds for a recorder to open its queues, before the nodes start without it."""

logger = logging.getLogger("dora.daemon")

T = TypeVar("T")


SPAN_NS: Final = 10_000_000_000
"""Span of which the sample with the shortest round trip is stored."""
KEPT_SAMPLES: Final = 30
"""Samples that a recording gets when it begins."""


class ClockSamples:
    """The best samples of the last minutes."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._kept: deque[recordings.ClockSample] = deque(maxlen=KEPT_SAMPLES)
        self._best: recordings.ClockSample | None = None
        self._since = 0

    def add(
        self, sent_ns: int, received_ns: int, coordinator_ns: int
    ) -> recordings.ClockSample | None:
        """Add a heartbeat; return a sample that is to be stored, once for each span.

        ``sent_ns``, ``received_ns``: CLOCK_MONOTONIC of this machine.
        """
        sample = recordings.ClockSample(
            boot_id=self._boot_id,
            monotonic_ns=(sent_ns + received_ns) // 2,
            coordinator_ns=coordinator_ns,
            round_trip_ns=received_ns - sent_ns,
        )
        if self._best is None:
            self._since = received_ns
            self._best = sample
        elif sample.round_trip_ns < self._best.round_trip_ns:
            self._best = sample
        if received_ns - self._since < SPAN_NS:
            return None
        stored, self._best = self._best, None
        self._kept.append(stored)
        return stored

    def recent(self) -> list[recordings.ClockSample]:
        """Return the samples for a new recording, oldest first."""
        return [*self._kept, *([] if self._best is None else [self._best])]


@dataclass(eq=False)
class Recorders:
    """Recordings by id, each in a folder below ``root``."""

    _tasks: TaskGroup
    _root: Path
    _machine: str
    _endpoint: Callable[[], Endpoint]
    _is_live: Callable[[str], bool]
    _post: Callable[[RecorderSettled | RecordingRequested], None]
    _clock: ClockSamples = field(default_factory=lambda: ClockSamples(boot_id()), init=False)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)
    """Recorders that this daemon process has started; their exit status is collected."""
    _starting: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)
    """Recorders that have not reported yet, and may not have a status file, by recording."""
    _not_started: dict[str, str] = field(default_factory=dict, init=False)
    """Why a recorder ended before it could report, by recording; it is not started again until
    the nodes are."""
    _starts: dict[str, anyio.Event] = field(default_factory=dict, init=False)
    """End of the last start in progress, by dataflow."""
    _adds_clock: bool = False

    def dataflows(self) -> set[str]:
        """Return the dataflows with a recording that has not ended, for a new daemon process."""
        found = self._read_all(lambda folder: folder.state(live=True))
        return {state.dataflow_id for state in found if state.phase != "ended"}

    def _read_all(self, read: Callable[[RecordingFolder], T]) -> list[T]:
        """Return what ``read`` returns for each recording; unreadable ones are logged."""
        found = []
        for folder in RecordingFolder.all(self._root):
            try:
                found.append(read(folder))
            except RecordingRefused as error:
                logger.warning("%s", error)
            except OSError as error:  # for example, the folder is being removed
                logger.warning("recording %s: %s", folder.path.name, os_error_text(error))
        return found

    # --------------------------------------------------------------------- processes

    def start(self, record: PartRecord, *, new_attempt: bool) -> None:
        """Start the recorders of a part; ``RecorderSettled`` is posted once they record."""
        done = anyio.Event()
        earlier = self._starts.get(record.dataflow_id)
        self._starts[record.dataflow_id] = done
        self._tasks.start_soon(self._start, record, new_attempt, earlier, done)

    async def _start(
        self,
        record: PartRecord,
        new_attempt: bool,
        earlier: anyio.Event | None,
        done: anyio.Event,
    ) -> None:
        if earlier is not None:
            await earlier.wait()
        try:
            self._create_planned(record)
            for folder in self._of_dataflow(record.dataflow_id):
                if new_attempt:
                    self._not_started.pop(folder.path.name, None)
                late = folder.path.name in self._starting
                if not late and self._needs_recorder(folder, new_attempt=new_attempt):
                    await self._start_one(folder, record)
        except OSError as error:
            logger.error("cannot record: %s", os_error_text(error))
        finally:
            done.set()
            if self._starts.get(record.dataflow_id) is done:
                del self._starts[record.dataflow_id]
        self._post(RecorderSettled(record.dataflow_id))

    def _create_planned(self, record: PartRecord) -> None:
        """Create the recording that the specification of a dataflow requests."""
        plan = record.spec.recording
        if plan is None or (folder := self._folder(plan.recording)).exists:
            return
        plan = plan.model_copy(update={"dataflow_id": record.dataflow_id})
        try:
            self._create(folder, plan)
        except OSError as error:
            logger.error("cannot record: %s", os_error_text(error))

    def _of_dataflow(self, dataflow_id: str) -> list[RecordingFolder]:
        found = self._read_all(lambda folder: (folder, folder.plan().dataflow_id))
        return [folder for folder, owner in found if owner == dataflow_id]

    async def _start_one(self, folder: RecordingFolder, record: PartRecord) -> None:
        recording = folder.path.name
        try:
            request = folder.request(record.dataflow_id, self._machine)
            recorder = SideProcess(RECORDER_MODULE, request, Path(record.runtime_dir))
        except (OSError, RecordingRefused) as error:
            self._not_started[recording] = f"a recorder could not be started: {error_text(error)}"
            logger.error("recording %s: %s", recording, self._not_started[recording])
            return
        recorder.finish()
        self._processes.append(recorder.process)
        self._starting[recording] = recorder.process
        with anyio.move_on_after(START_SECONDS) as scope:
            await run_in_daemon_thread(recorder.next_line)  # the status file has the details
            recorder.release()
        if scope.cancelled_caught:
            # It stays in `_starting`, so that `_stop` ends it.
            text = "the recorder of %s has not started within %g s"
            logger.warning(text, folder.path, START_SECONDS)
            return
        self._starting.pop(recording, None)
        if not folder.is_stopped:
            self._check_started(folder, request)

    def _check_started(self, folder: RecordingFolder, request: RecordingRequest) -> None:
        if request.status_file is None or not Path(request.status_file).exists():
            problem = "a recorder could not be started; its error is in the log of the daemon"
            self._not_started[folder.path.name] = problem

    def _needs_recorder(self, folder: RecordingFolder, *, new_attempt: bool) -> bool:
        if folder.path.name in self._not_started:
            return False
        return folder.needs_recorder(new_attempt=new_attempt)

    # ---------------------------------------------------------------------- requests

    async def call(self, request: recordings.RecorderRequest) -> recordings.RecorderReply:
        """Return the reply to a request. Raises RecordingRefused."""
        try:
            return await self._call(request)
        except OSError as error:
            raise RecordingRefused(os_error_text(error)) from error

    async def _call(self, request: recordings.RecorderRequest) -> recordings.RecorderReply:
        match request:
            case recordings.RecordPart(plan=plan):
                return await self._record(plan)
            case recordings.StopRecording(recording=recording):
                return self._stop(self._folder(recording))
            case recordings.ListRecordings():
                return recordings.RecordingStates(recordings=tuple(self._read_all(self._state)))
            case recordings.DescribeRecording(recording=recording):
                return self._folder(recording).describe()
            case recordings.SendRecording(recording=recording, file=name):
                file = await anyio.to_thread.run_sync(self._folder(recording).open, name)
                return self._send(request, file)
            case recordings.RemoveRecording(recording=recording, files=files):
                await anyio.to_thread.run_sync(self._folder(recording).remove, files)
                self._not_started.pop(recording, None)
                return recordings.RecordingStates()

    def _send(self, request: recordings.SendRecording, file: BinaryIO) -> recordings.RecordingSize:
        """Start the upload of a part, and close the file."""
        size = os.fstat(file.fileno()).st_size
        end = size if request.last is None else min(size, request.last + 1)
        length = end - request.first
        if request.upload and length > 0:
            self._tasks.start_soon(
                run_in_daemon_thread, partial(self._upload, request, file, length)
            )
        else:
            file.close()
        return recordings.RecordingSize(size=size)

    def _upload(self, request: recordings.SendRecording, file: BinaryIO, length: int) -> None:
        with file:
            try:
                endpoint = self._endpoint()
                file.seek(request.first)
                with closing(ControlConnection(endpoint, timeout=TIMEOUT)) as connection:
                    send_file(connection, request.upload, file, length, endpoint.headers())
            except (DoraError, OSError, HTTPException) as error:  # the receiver may have ended
                logger.info("%s was not sent in full: %s", request.file, error)

    def _stop(self, folder: RecordingFolder) -> recordings.RecordingStates:
        state = folder.state(live=False)  # raises if the recording does not exist
        for status in folder.stop():
            with suppress(ProcessLookupError):
                os.kill(status.pid, signal.SIGTERM)
        starting = self._starting.get(folder.path.name)
        if starting is not None:
            starting.terminate()  # a recorder that got a SIGTERM above ignores the second one
        return recordings.RecordingStates(recordings=(state,))

    async def _record(self, plan: RecordingPlan) -> recordings.RecordingStates:
        folder = self._folder(plan.recording)
        if not folder.exists and not self._is_live(plan.dataflow_id):
            return recordings.RecordingStates()
        if not folder.exists:
            self._create(folder, plan)
        elif folder.plan() != plan:
            folder.save(plan)
        if self._needs_recorder(folder, new_attempt=False):
            self._post(RecordingRequested(plan.dataflow_id))
            if (start := self._starts.get(plan.dataflow_id)) is not None:
                await start.wait()
        return recordings.RecordingStates(recordings=(self._state(folder),))

    def _state(self, folder: RecordingFolder) -> recordings.RecordingState:
        """Return the state of a recording. Raises RecordingRefused."""
        state = folder.state(live=self._is_live(folder.plan().dataflow_id))
        problem = self._not_started.get(folder.path.name)
        if problem is None:
            return state
        phase = "ended" if state.phase == "waiting" else state.phase
        problems = (*state.problems, problem)
        return state.model_copy(update={"phase": phase, "problems": problems})

    def _create(self, folder: RecordingFolder, plan: RecordingPlan) -> None:
        folder.save(plan)
        folder.add_clock(self._clock.recent())

    def _folder(self, recording: str) -> RecordingFolder:
        return RecordingFolder(self._root / recording)

    # ------------------------------------------------------------------------- clock

    def acknowledged(self, ack: HeartbeatAck) -> None:
        """Note the coordinator's time, for recordings in progress."""
        self._processes = [process for process in self._processes if process.poll() is None]
        self._starting = {k: one for k, one in self._starting.items() if one.poll() is None}
        if ack.monotonic_ns is None or ack.coordinator_ns is None:
            return
        sample = self._clock.add(ack.monotonic_ns, time.monotonic_ns(), ack.coordinator_ns)
        if sample is not None and not self._adds_clock:
            self._adds_clock = True
            self._tasks.start_soon(self._add_clock, sample)

    async def _add_clock(self, sample: recordings.ClockSample) -> None:
        try:
            await run_in_daemon_thread(partial(_append_sample, self._root, sample))
        finally:
            self._adds_clock = False


def _append_sample(root: Path, sample: recordings.ClockSample) -> None:
    """Append a sample to the recordings in progress; on a thread, as the disk may be slow."""
    try:
        folders = RecordingFolder.all(root)
    except OSError as error:
        logger.warning("no clock sample for the recordings: %s", os_error_text(error))
        return
    for folder in folders:
        try:
            if folder.is_recording():
                folder.add_clock([sample])
        except OSError as error:
            logger.warning("no clock sample for a recording: %s", os_error_text(error))
