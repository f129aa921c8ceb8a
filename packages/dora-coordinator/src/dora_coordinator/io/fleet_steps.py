"""Carries out one step of a roll-out: a build and a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from dora_config.protocol import control
from dora_config.protocol.builds import Built
from dora_coordinator.state.events import FleetStep, FleetStepEnded

Request = Callable[[control.ControlRequest], Awaitable[control.Answer | control.Failure | None]]
_LOST = "the answer was lost: the coordinator is ending or cannot write to its store"


async def carry_out(step: FleetStep, send: Request) -> FleetStepEnded:
    """Carry out a step; return its result."""
    request = step.request
    if step.build is not None:
        built = await send(step.build)
        if not isinstance(built, control.Answer):
            return _failed(step, built)
        match request, built.answer:
            case control.StartDataflow() | control.ReplaceDataflow(), Built(build_id=build_id):
                spec = request.spec.model_copy(update={"delivered_by": build_id})
                request = request.model_copy(update={"spec": spec})
            case _:
                pass
    answer = await send(request)
    return FleetStepEnded(step) if isinstance(answer, control.Answer) else _failed(step, answer)


def _failed(step: FleetStep, failure: control.Failure | None) -> FleetStepEnded:
    if failure is None:
        return FleetStepEnded(step, _LOST, "conflict")
    return FleetStepEnded(step, failure.message, failure.code)
