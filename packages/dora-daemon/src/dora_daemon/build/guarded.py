"""A build in the foreground that leaves no command behind, also when it is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dora_daemon.build.command import OnCommand
from dora_daemon.process_tree.reaper_process import ReaperProcess
from dora_daemon.process_tree.runtime_dir import RuntimeDir, runtime_root


@contextmanager
def guarded() -> Iterator[OnCommand]:
    """Pass what it yields as ``on_command``: if this process is killed, its reaper ends them.

    Raises RuntimeDirError if no runtime directory can be created.
    """
    directory = RuntimeDir.create(runtime_root())
    reaper = ReaperProcess(directory.path)
    try:
        reaper.start()
        yield directory.record_process
    finally:
        directory.release()
        reaper.dismiss()
