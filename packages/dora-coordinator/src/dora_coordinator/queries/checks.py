"""Commands of roll-outs, which must succeed for a machine; they run on this machine."""

from __future__ import annotations

import os
from subprocess import STDOUT

import anyio

from dora_config.protocol.fleet import Checked, CheckMachine
from dora_coordinator.state.commands import RequestRefused

CHECK_SECONDS = 60.0
"""Seconds for the check command of a roll-out."""


async def check(request: CheckMachine) -> Checked:
    """Run the command; raises RequestRefused with its last line if it fails."""
    problem = None if request.dry_run else await _problem(request)
    if problem is not None:
        raise RequestRefused("failed", f"check: {problem}")
    return Checked()


async def _problem(request: CheckMachine) -> str | None:
    env = {**os.environ, "DORA_MACHINE": request.machine}
    if request.version:
        env["DORA_VERSION"] = request.version
    else:
        env |= {"DORA_DATAFLOW": request.dataflow, "DORA_GENERATION": str(request.generation)}
    with anyio.move_on_after(CHECK_SECONDS):
        try:
            done = await anyio.run_process(
                ["/bin/sh", "-c", request.command], env=env, stderr=STDOUT, check=False
            )
        except OSError as error:
            return str(error)
        if done.returncode == 0:
            return None
        lines = done.stdout.decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        return f"exit code {done.returncode}: {last}"
    return f"not finished within {CHECK_SECONDS:g} s"
