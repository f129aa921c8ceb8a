"""Carries out one step of a roll-out: a build and a request, or a command of the operator."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from subprocess import STDOUT

import anyio

from dora_config.protocol import control
from dora_config.protocol.builds import Built
from dora_coordinator.state.commands import FleetStep

CHECK_SECONDS = 60.0
"""Limit for a command of a roll-out."""

Request = Callable[[control.ControlRequest], Awaitable[control.Answer | control.Failure | None]]
_LOST = "the answer was lost: the coordinator is ending or cannot write to its store"


async def step_result(step: FleetStep, send: Request) -> tuple[str | None, control.FailureCode]:
    """Return why a step has failed, or None, with the code of the failure."""
    if step.check is not None:
        return await _check(step), "failed"
    request = step.request
    assert request is not None
    if step.build is not None:
        built = await send(step.build)
        if not isinstance(built, control.Answer):
            return _problem(built)
        if isinstance(request, control.StartDataflow) and isinstance(built.answer, Built):
            spec = request.spec.model_copy(update={"delivered_by": built.answer.build_id})
            request = control.StartDataflow(spec=spec)
    answer = await send(request)
    return (None, "failed") if isinstance(answer, control.Answer) else _problem(answer)


def _problem(failure: control.Failure | None) -> tuple[str, control.FailureCode]:
    return (_LOST, "conflict") if failure is None else (failure.message, failure.code)


async def _check(step: FleetStep) -> str | None:
    """Run the command of a roll-out for one machine; return its last line if it fails."""
    assert step.check is not None
    env = {
        **os.environ,
        "DORA_MACHINE": step.machine or "",
        "DORA_DATAFLOW": step.copy,
        "DORA_GENERATION": str(step.generation),
    }
    with anyio.move_on_after(CHECK_SECONDS):
        try:
            done = await anyio.run_process(
                ["/bin/sh", "-c", step.check], env=env, stderr=STDOUT, check=False
            )
        except OSError as error:
            return f"check: {error}"
        if done.returncode == 0:
            return None
        lines = done.stdout.decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        return f"check: exit code {done.returncode}: {last}"
    return f"check: not finished within {CHECK_SECONDS:g} s"
