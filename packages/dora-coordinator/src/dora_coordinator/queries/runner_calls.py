"""Requests to the runners of a dataflow's parts."""

from __future__ import annotations

from typing import Final, get_args

import anyio

from dora_config.protocol.calls import NodeRequest, PartReply, RunnerCall, RunnerReplies
from dora_config.protocol.control import CallRunner
from dora_config.protocol.envelope import clean_lines
from dora_config.protocol.runner import (
    DeleteParam,
    Done,
    Refusal,
    RestartNode,
    RunnerReply,
    SetParam,
)
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.part import Part
from dora_coordinator.queries.cluster import QueryContext
from dora_coordinator.queries.graph_changes import change_ended_part
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.events import EndedPartChanged, ParamChanged
from dora_coordinator.state.records import Phase

_REPLIES: Final[type[RunnerReply]] = get_args(RunnerReply)[0]
END_SECONDS: Final = 30.0
"""Time for the report of a part's end, after its runner has refused a request because of it."""


async def call_runners(query: CallRunner, present: QueryContext) -> RunnerReplies:
    """Call the runner of the request's node, or those of every part. Raises RequestRefused."""
    dataflow = present.registry.find(query.dataflow, archived=False)
    node, request = query.node, query.request
    if (ended := _ended_part_of(dataflow, node)) is not None and node is not None:
        return await _without_runner(dataflow, ended, node, request, present)
    answers = await present.calls.gather(
        _daemons_of(dataflow, node),
        RunnerCall(dataflow_id=dataflow.id, request=request),
        _REPLIES,
        seconds=None,
    )
    problems = dict(answers.problems)
    replies = []
    for daemon, answer in answers.found.items():
        match answer:
            case Refusal(ended=True) if node is not None and (
                ended := await _end_of_part(present, dataflow.id, daemon)
            ):
                return await _without_runner(dataflow, ended, node, request, present)
            case Refusal(message=reason):
                problems[daemon] = clean_lines(reason)
            case reply:
                replies.append(PartReply(daemon=daemon, reply=reply))
    if replies and isinstance(request, SetParam | DeleteParam):
        try:
            await present.store(dataflow.id, ParamChanged(request))
        except RequestRefused as problem:
            text = f"changed until its machine restarts; {problem}"
            raise RequestRefused("failed", text) from problem
    if problems and not replies:
        raise RequestRefused("failed", "\n".join(problems.values()))
    return RunnerReplies(replies=tuple(replies), problems=tuple(problems.values()))


async def _without_runner(
    dataflow: Dataflow, part: Part, node: str, request: NodeRequest, present: QueryContext
) -> RunnerReplies:
    """Start a node again, or set its parameter, although its part has ended."""
    if not present.membership.is_connected(part.daemon):
        raise RequestRefused("failed", f'no connection to daemon "{part.daemon}"')
    match request:
        case RestartNode():
            change = EndedPartChanged(part.daemon, starts=(node,))
            await change_ended_part(present, dataflow, change)
        case SetParam() | DeleteParam():
            await present.store(dataflow.id, ParamChanged(request))
        case _:
            raise RequestRefused("not_found", f'node "{node}" of {dataflow.label} has ended')
    return RunnerReplies(replies=(PartReply(daemon=part.daemon, reply=Done()),))


def _daemons_of(dataflow: Dataflow, node: str | None) -> list[str]:
    if node is None:
        return [part.daemon for part in dataflow.parts.left()]
    by_node = dataflow.parts.by_node()
    daemon = by_node.get(node)
    if daemon is None:
        raise RequestRefused(
            "not_found",
            f'dataflow {dataflow.label} has no node "{node}"; its nodes are: '
            f"{', '.join(sorted(by_node))}",
        )
    return [daemon]


async def _end_of_part(present: QueryContext, dataflow_id: str, daemon: str) -> Part | None:
    """Wait for the end of a part whose runner ends, and return the part.

    None if the dataflow ends too, if the part was removed, or after `END_SECONDS`.
    """
    with anyio.move_on_after(END_SECONDS):
        while (dataflow := present.registry.get(dataflow_id)) is not None:
            if dataflow.has_ended or dataflow.phase is Phase.STOPPING:
                return None
            part = dataflow.parts.get(daemon)
            if part is None or part.ended:
                return part
            await present.changed()
    return None


def _ended_part_of(dataflow: Dataflow, node: str | None) -> Part | None:
    """Return the part of a node if it has ended."""
    daemon = None if node is None else dataflow.parts.by_node().get(node)
    part = None if daemon is None else dataflow.parts[daemon]
    return part if part is not None and part.ended else None
