"""Starts a runner in a session of its own; for daemons."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dora_config.protocol.runner import RunPlan
from dora_daemon.runner.runtime_dir import RuntimeDir

LOG = "runner.log"


@dataclass(frozen=True, slots=True)
class LaunchedRunner:
    """A runner that was started. ``path`` is its runtime directory."""

    path: Path
    process: subprocess.Popen[bytes]


def launch_runner(root: Path, plan: RunPlan) -> LaunchedRunner:
    """Write the plan into a new runtime directory below ``root`` and start a runner there.

    The runner holds the directory's lock from its first moment on. It does not depend on the
    caller: its own session, its output in ``runner.log``, no pipe between the two. Raises
    RunnerError and OSError.
    """
    directory = RuntimeDir.create(root)
    try:
        directory.write("plan.json", plan.model_dump_json())
        descriptor = directory.lock_descriptor
        with (directory.path / LOG).open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "dora_daemon.runner",
                    str(directory.path),
                    str(descriptor),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(descriptor,),
                start_new_session=True,
            )
    except BaseException:
        directory.release()
        raise
    # The runner holds the lock now, through its copy of the descriptor.
    os.close(descriptor)
    return LaunchedRunner(directory.path, process)
