"""Folder of one recording on this machine.

plan.json    the RecordingPlan
stopped      exists once the recording was stopped: no recorder is started again
clock.jsonl  ClockSamples
N.status     report of the Nth recorder process, see ``dora_recordings.status_file``
*.mcap       its files
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from dora_config.access import private_dir, write_private
from dora_config.errors import DoraError, os_error_text
from dora_config.protocol import recordings
from dora_config.protocol.recorders import (
    RecorderEnd,
    RecorderStatus,
    RecordingPlan,
    RecordingRequest,
)
from dora_recordings.status_file import is_recording, read_status

PLAN, STOPPED, CLOCK, STATUS = "plan.json", "stopped", "clock.jsonl", ".status"
MAX_RECORDERS = 100
"""Most recorder processes of one recording, in case each one crashes."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


class RecordingRefused(DoraError):
    """A request about a recording cannot be fulfilled."""


class RecordingFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def all(cls, root: Path) -> list[RecordingFolder]:
        """Return the recordings below ``root``."""
        return [cls(plan.parent) for plan in sorted(root.glob(f"*/{PLAN}"))]

    @property
    def exists(self) -> bool:
        return (self.path / PLAN).exists()

    def plan(self) -> RecordingPlan:
        """Return the plan of the recording. Raises RecordingRefused."""
        try:
            return RecordingPlan.model_validate_json((self.path / PLAN).read_bytes())
        except FileNotFoundError:
            raise RecordingRefused(
                f"this machine has no recording {self.path.name}; see `dora recording list`"
            ) from None
        except (OSError, ValidationError) as error:
            raise RecordingRefused(f"{self.path / PLAN}: unreadable: {error}") from error

    def save(self, plan: RecordingPlan) -> None:
        """Create or update the plan. Raises OSError."""
        private_dir(self.path)
        write_private(self.path / PLAN, plan.model_dump_json().encode())

    # ----------------------------------------------------------------------- recorders

    def statuses(self) -> list[RecorderStatus | None]:
        """Return the reports of the recorder processes so far; None for an unreadable one."""
        return [self._status(number) for number in range(self._recorders())]

    def _recorders(self) -> int:
        return sum(1 for _ in self.path.glob(f"*{STATUS}"))

    def _status(self, number: int) -> RecorderStatus | None:
        return read_status(self.path / f"{number}{STATUS}")

    def is_recording(self) -> bool:
        """Return whether a recorder runs; only the last one can."""
        last = self._status(self._recorders() - 1)
        return last is not None and is_recording(last)

    def needs_recorder(
        self, statuses: Sequence[RecorderStatus | None] | None = None, *, new_attempt: bool
    ) -> bool:
        """Return whether to start a recorder: none runs, and the recording has not ended.

        ``statuses``: what was read already. ``new_attempt``: the nodes are being started, after an
        earlier recorder ended with them.
        """
        statuses = self.statuses() if statuses is None else statuses
        if self.is_stopped or len(statuses) >= MAX_RECORDERS:
            return False
        last = statuses[-1] if statuses else None
        if last is None or (last.end is None and not is_recording(last)):
            return True
        return new_attempt and last.end in (RecorderEnd.DATAFLOW, RecorderEnd.RUNNER)

    def request(self, dataflow_id: str, machine: str) -> RecordingRequest:
        """Return the request for the next recorder process. Raises RecordingRefused."""
        plan = self.plan()
        statuses = self.statuses()
        number = len(statuses)
        name = _UNSAFE.sub("_", machine).lstrip(".-") or "machine"
        left: dict[str, float] = {}
        if (size := plan.limits.max_bytes) is not None:
            left["max_bytes"] = max(1, size - sum(file.size for file in self._files()))
        if (seconds := plan.limits.max_seconds) is not None:
            used = sum(one.seconds for one in statuses if one is not None)
            left["max_seconds"] = max(0.0, seconds - used)
        return RecordingRequest(
            dataflow_id=dataflow_id,
            patterns=plan.patterns,
            path=str(self.path / f"{name}-{number}.mcap"),
            limits=plan.limits.model_copy(update=left),
            status_file=str(self.path / f"{number}{STATUS}"),
            dataflow=plan.dataflow or None,
            working_dir=plan.working_dir or None,
            count_on=True,
            none_is_fine=True,
        )

    @property
    def is_stopped(self) -> bool:
        """Whether no more recorders are started, as requested."""
        return (self.path / STOPPED).exists()

    def stop(self) -> list[RecorderStatus]:
        """Start no more recorders; return those that run. Raises OSError."""
        (self.path / STOPPED).touch()
        return [one for one in self.statuses() if one is not None and is_recording(one)]

    # --------------------------------------------------------------------------- state

    def state(self, *, live: bool) -> recordings.RecordingState:
        """Return the state; ``live``: the dataflow has nodes on this machine.

        Raises RecordingRefused.
        """
        plan = self.plan()
        statuses = self.statuses()
        recorded, lost = Counter[str](), Counter[str]()
        for status in statuses:
            if status is not None:
                recorded.update(status.recorded)
                lost.update(status.lost)
        return recordings.RecordingState(
            recording=plan.recording,
            dataflow_id=plan.dataflow_id,
            name=plan.name,
            machines=plan.machines,
            started=plan.started,
            phase=self._phase(statuses, live=live),
            resumes=self.needs_recorder(statuses, new_attempt=True),
            files=tuple(self._files()),
            recorded=recorded,
            lost=lost,
            problems=tuple(self._problems(statuses)),
        )

    def _phase(
        self, statuses: Sequence[RecorderStatus | None], *, live: bool
    ) -> recordings.RecordingPhase:
        if any(status is not None and is_recording(status) for status in statuses):
            return "recording"
        if live and self.needs_recorder(statuses, new_attempt=True):
            return "waiting"
        return "ended"

    def _problems(self, statuses: Sequence[RecorderStatus | None]) -> list[str]:
        found = []
        for number, status in enumerate(statuses):
            if status is None:
                found.append(f"recorder {number} left no report; its counts are unknown")
            elif status.problem is not None and status.end is not RecorderEnd.RUNNER:
                found.append(status.problem)
            elif status.end is None and not is_recording(status):
                found.append(
                    f"recorder {number} was killed: its file is readable up to its last second, "
                    "and messages until the next recorder are missing"
                )
        return found

    def _files(self) -> list[recordings.RecordedFile]:
        return [
            recordings.RecordedFile(name=path.name, size=path.stat().st_size)
            for path in sorted(self.path.glob("*.mcap"))
            if re.fullmatch(recordings.FILE_NAME, path.name)  # ignore other files
        ]

    # ------------------------------------------------------------------------ contents

    def add_clock(self, samples: list[recordings.ClockSample]) -> None:
        """Append samples. Raises OSError."""
        with (self.path / CLOCK).open("a") as file:
            file.write("".join(sample.model_dump_json() + "\n" for sample in samples))

    def describe(self) -> recordings.RecordingDescribed:
        """Return the plan and the clock samples. Raises RecordingRefused."""
        samples = []
        lines: list[bytes] = []
        with suppress(OSError):
            lines = (self.path / CLOCK).read_bytes().splitlines()
        for line in lines:
            with suppress(ValidationError):  # cut short by a full disk, or damaged by a power cut
                samples.append(recordings.ClockSample.model_validate_json(line))
        return recordings.RecordingDescribed(plan=self.plan(), clock=tuple(samples))

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading. Raises RecordingRefused."""
        try:
            return (self.path / name).open("rb")
        except OSError as error:
            raise RecordingRefused(f"{self.path / name}: {error.strerror}") from error

    def remove(self, expected: tuple[recordings.RecordedFile, ...] | None = None) -> None:
        """Remove it, only with the ``expected`` files if given. Raises RecordingRefused."""
        if any(status is not None and is_recording(status) for status in self.statuses()):
            raise RecordingRefused(
                f"recording {self.path.name} is in progress; stop it with `dora recording stop`"
            )
        if expected is not None and self.exists and tuple(self._files()) != expected:
            raise RecordingRefused(
                f"recording {self.path.name} has grown since it was fetched; it was not removed"
            )
        try:
            shutil.rmtree(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise RecordingRefused(os_error_text(error)) from error
