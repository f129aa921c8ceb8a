"""Runtime directory of one runner, as its daemon uses it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dora_config.process_identity import is_alive
from dora_config.protocol.runner import DataflowResult
from dora_daemon.process_tree import runtime_dir
from dora_daemon.process_tree.reaper import LOG, OWNER, RESULT
from dora_daemon.process_tree.runtime_dir import RuntimeDirError
from dora_node_api.protocol.runner_index import read_entry


@dataclass(frozen=True, slots=True)
class RunnerDirectory:
    """A numbered directory; ``token`` distinguishes it from a later one with the same number."""

    path: Path
    token: str

    def is_ours(self) -> bool:
        try:
            return (self.path / OWNER).read_text() == self.token
        except OSError:
            return False

    def was_removed(self) -> bool:
        """Whether the directory does not exist; False if that cannot be determined."""
        try:
            (self.path / OWNER).stat()
        except FileNotFoundError:
            return True
        except OSError:
            pass
        return False

    def is_unlocked(self) -> bool:
        """Whether the runner has ended: its lock is free, or the directory belongs to another."""
        if not self.is_ours():
            return True
        try:
            descriptor = runtime_dir.lock(self.path / "lock")
        except OSError:
            return True  # it is being removed
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the runner that is named in the index."""
        entry = read_entry(self.path) if self.is_ours() else None
        if entry is not None and is_alive(entry.pid, entry.start_time):
            with suppress(ProcessLookupError):
                os.kill(entry.pid, number)

    def result(self) -> DataflowResult | None:
        """Return the result that the runner wrote before it ended, if there is one."""
        try:
            found = DataflowResult.model_validate_json((self.path / RESULT).read_bytes())
        except (OSError, ValueError):
            return None
        return found if self.is_ours() else None

    def last_output(self) -> str:
        """Return the last lines that the runner printed, each after a newline."""
        try:
            lines = (self.path / LOG).read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "".join(f"\n  {line}" for line in lines[-5:]) if self.is_ours() else ""

    def clean_up(self) -> None:
        """Kill the processes of the runner and remove the directory if its reaper has not."""
        with suppress(RuntimeDirError, OSError):
            if self.is_ours():
                (self.path / RESULT).unlink(missing_ok=True)
            runtime_dir.sweep(self.path.parent)
