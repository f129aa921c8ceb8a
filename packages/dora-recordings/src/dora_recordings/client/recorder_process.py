"""Recorder process of a command, for a runner of this user."""

from __future__ import annotations

import signal
from pathlib import Path

from dora_cli import output
from dora_cli.errors import CommandFailed
from dora_config.errors import DoraError
from dora_config.protocol.recorders import RecorderStatus, RecordingRequest
from dora_daemon.inspection.process import SideProcess
from dora_daemon.process_tree.runtime_dir import living_runners, runtime_root
from dora_node_api.protocol.runner_index import IndexEntry
from dora_recordings import RECORDER_MODULE
from dora_recordings.client.fleet import RecordingError, write_report


class NoSuchRunner(DoraError):
    """No dataflow of that name runs here, or more than one."""


def find_runner(dataflow: str) -> tuple[Path, IndexEntry]:
    """Return directory and index of a dataflow's runner; raises NoSuchRunner.

    ``dataflow`` is a name, a UUID or the start of a UUID.
    """
    alive = living_runners(runtime_root())
    found = [one for one in alive if dataflow in (one[1].name, one[1].dataflow_id)]
    found = found or [one for one in alive if one[1].dataflow_id.startswith(dataflow)]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(entry.dataflow_id for _, entry in found)
        raise NoSuchRunner(f'{len(found)} running dataflows match "{dataflow}"; name one: {ids}')
    running = ", ".join(entry.name or entry.dataflow_id for _, entry in alive) or "none"
    raise NoSuchRunner(
        f'dataflow "{dataflow}" does not run on this machine as this user; running: {running}'
    )


class RecorderProcess:
    """Recorder as a child process; it finishes its file when this process ends in any way."""

    def __init__(self, runner: Path, request: RecordingRequest) -> None:
        """Start recording; ``runner``: directory of the runner. Raises RecordingError."""
        self._process = SideProcess(RECORDER_MODULE, request, runner)
        self._folder = Path(request.path).parent
        started = self._next_report()
        if started is None or started.end is not None:
            ended = self._exit()
            problem = started.problem if started is not None else None
            raise RecordingError(f"cannot record: {problem or ended}")
        self._started = started
        count = output.counted(len(started.recorded), "output")
        output.remark(f"recording {count} to {self._folder / started.files[0]}")

    def _next_report(self) -> RecorderStatus | None:
        line = self._process.next_line()
        return None if line is None else RecorderStatus.model_validate_json(line)

    def wait(self) -> None:
        """Report when the recording has ended; Ctrl-C ends it."""
        try:
            ended = self._next_report()
        except KeyboardInterrupt:
            self.finish()
        else:
            self._report(ended)

    def finish(self) -> None:
        """Record the messages sent so far, end the process, and report."""
        self._process.finish()
        self._report(self._next_report())

    def _report(self, ended: RecorderStatus | None) -> None:
        """Print what was recorded; raises CommandFailed unless all of it was."""
        how = self._exit()
        if ended is None:
            problem = f"{how}; the file is readable up to its last second"
            ended = self._started.model_copy(update={"recorded": {}, "problem": problem})
        early = ended.problem and f"the recording ended early: {ended.problem}"
        files = [str(self._folder / name) for name in ended.files]
        if not write_report(ended.recorded, ended.lost, files, (early,) if early else ()):
            raise CommandFailed

    def _exit(self) -> str:
        """Wait until the process has ended; return a sentence for an unexpected end."""
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return f"the recorder ended unexpectedly ({how})"
