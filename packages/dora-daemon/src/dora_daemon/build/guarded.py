"""A build in the foreground that leaves no command behind, also when it is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dora_daemon.build.command import OnCommand
from dora_daemon.runner.process.reaper_process import Guard
from dora_daemon.runner.runtime_dir import RuntimeDir, runtime_root


@contextmanager
def guarded() -> Iterator[OnCommand]:
    """Pass what it yields as ``on_command``: if this process is killed, its guardian ends them.

    Raises RunnerError if there is no place for runtime directories.
    """
    directory = RuntimeDir.create(runtime_root())
    guard = Guard(directory.path)
    try:
        guard.start()
        yield directory.record_process
    finally:
        directory.release()
        guard.dismiss()
