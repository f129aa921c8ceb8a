"""Operations of the REST API: arguments in, control requests out, their answers in, a result out.

An operation sends its requests through a function, so that a coordinator, a connection to one and
the runs of one computer can answer them. :data:`OPERATIONS` is the whole API.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from dora_config.history.explanation import Explanation
from dora_config.protocol import control
from dora_config.protocol.calls import NodeRequest, RunnerReplies
from dora_config.protocol.rest import models, paths
from dora_config.protocol.rest.errors import OperationFailed
from dora_config.protocol.rest.start import specification
from dora_config.protocol.runner import RestartNode, StopNode
from dora_config.protocol.snapshot import DaemonSummary, NodeSummary

A = TypeVar("A", bound=models.Arguments)
T = TypeVar("T", bound=control.ControlAnswer)
R = TypeVar("R", bound=BaseModel)

Send = Callable[[control.ControlRequest], Awaitable[control.ControlAnswer]]
"""Sends a request and returns its answer; its errors are those of the operation."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[A, R]):
    """One method of one path; arguments that are not in the path are in the query or the body."""

    method: Literal["GET", "POST"]
    path: str
    """With names of arguments in braces, whose values are percent-encoded."""
    name: str
    summary: str
    arguments: type[A]
    result: type[R]
    run: Callable[[A, Send], Awaitable[R]]
    """Raises OperationFailed, and what its function raises."""
    status: int = 200

    def parse(self, in_path: Mapping[str, str], others: Mapping[str, object]) -> A:
        """Return the arguments in the path, and in the query or body; raises OperationFailed."""
        for key in in_path.keys() & others.keys():
            raise OperationFailed("invalid", f'"{key}" is in the path already')
        try:
            return self.arguments.model_validate({**others, **in_path})
        except ValidationError as problems:
            first = problems.errors(include_url=False, include_input=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            sentence = f"{name}: {first['msg']}"
            if first["type"] == "extra_forbidden":
                known = ", ".join(self.arguments.model_fields) or "none"
                sentence = f'unknown argument "{name}"; arguments of {self.path}: {known}'
            raise OperationFailed("invalid", sentence) from problems


def body_arguments(content: bytes) -> dict[str, object]:
    """Return the arguments in a body, which may be empty; raises OperationFailed."""
    try:
        found = json.loads(content or b"{}")
        json.dumps(found, ensure_ascii=False).encode()  # refuses lone surrogates
    except (ValueError, RecursionError) as problem:
        raise OperationFailed("invalid", f"the body is not valid JSON: {problem}") from problem
    if not isinstance(found, dict):
        raise OperationFailed("invalid", "the body must be a JSON object")
    return found


async def _answer(send: Send, request: control.ControlRequest, expected: type[T]) -> T:
    answer = await send(request)
    assert isinstance(answer, expected)
    return answer


# ------------------------------------------------------------------------------- dataflows


async def _list_dataflows(wanted: models.DataflowFilter, send: Send) -> models.Dataflows:
    found = await _answer(send, control.ListDataflows(), control.DataflowList)
    return models.Dataflows(
        dataflows=tuple(
            row
            for row in found.dataflows
            if _has_status(row, wanted.status)
            and (wanted.name is None or wanted.name in (row.name or ""))
        )
    )


def _has_status(row: control.DataflowSummary, wanted: str | None) -> bool:
    if wanted == "running":
        return row.status not in ("Finished", "Failed")
    return wanted is None or row.status.lower() == wanted


async def _get_dataflow(wanted: models.OneDataflow, send: Send) -> control.DataflowSummary:
    _, row = await _find(wanted.dataflow, send)
    return row


async def _find(dataflow: str, send: Send) -> tuple[control.Described, control.DataflowSummary]:
    """Return a dataflow and its row in the list, which may have been cleaned meanwhile."""
    found = await _describe(dataflow, send)
    rows = await _answer(send, control.ListDataflows(), control.DataflowList)
    for row in rows.dataflows:
        if row.uuid == found.uuid:
            return found, row
    raise OperationFailed("not_found", f"the dataflow {found.uuid} was removed")


async def _describe(dataflow: str, send: Send) -> control.Described:
    request = control.DescribeDataflow(dataflow=control.DataflowRef.parse(dataflow))
    return await _answer(send, request, control.Described)


async def _get_specification(wanted: models.OneDataflow, send: Send) -> models.Specification:
    found = await _describe(wanted.dataflow, send)
    return models.Specification(uuid=found.uuid, spec=found.spec, daemons=found.daemons)


async def _explain(wanted: models.OneDataflow, send: Send) -> Explanation:
    request = control.Explain(dataflow=control.DataflowRef.parse(wanted.dataflow))
    return (await _answer(send, request, control.Explained)).explanation


async def _start_file(wanted: models.StartDataflowFile, send: Send) -> models.StartedDataflow:
    spec, warnings = await asyncio.to_thread(specification, wanted)  # it reads files
    answer = await _answer(send, control.StartDataflow(spec=spec), control.Started)
    return models.StartedDataflow(uuid=answer.uuid, warnings=(*warnings, *answer.warnings))


async def _start_again(wanted: models.OneDataflow, send: Send) -> models.StartedDataflow:
    found, row = await _find(wanted.dataflow, send)
    if row.ended_ago is None:
        shown = f'"{row.name}" ({row.uuid})' if row.name else row.uuid
        raise OperationFailed(
            "conflict", f"dataflow {shown} is running already; restart it instead"
        )
    answer = await _answer(send, control.StartDataflow(spec=found.spec), control.Started)
    return models.StartedDataflow(uuid=answer.uuid, warnings=answer.warnings)


async def _stop_one(wanted: models.StopOne, send: Send) -> models.StoppedDataflows:
    which = control.DataflowRef.parse(wanted.dataflow)
    request = control.StopDataflow(dataflow=which, grace=wanted.grace, force=wanted.force)
    return await _stop(request, send)


async def _stop_some(wanted: models.StopSome, send: Send) -> models.StoppedDataflows:
    if wanted.all and wanted.dataflow is not None:
        raise OperationFailed("invalid", '"all" and "dataflow" cannot be used together')
    which = control.DataflowRef.parse(wanted.dataflow)
    request = control.StopDataflow(
        dataflow=which, all=wanted.all, grace=wanted.grace, force=wanted.force
    )
    return await _stop(request, send)


async def _stop(request: control.StopDataflow, send: Send) -> models.StoppedDataflows:
    _require_one_manner(request)
    answer = await _answer(send, request, control.Ended)
    return models.StoppedDataflows(dataflows=answer.dataflows)


def _require_one_manner(wanted: control.StopDataflow | control.RestartDataflow) -> None:
    if wanted.force and wanted.grace is not None:
        raise OperationFailed("invalid", '"force" and "grace" cannot be used together')


async def _restart(
    wanted: models.StopOne | models.RestartOnly, send: Send
) -> models.RestartedDataflow:
    which = control.DataflowRef.parse(wanted.dataflow)
    request = control.RestartDataflow(dataflow=which, grace=wanted.grace, force=wanted.force)
    _require_one_manner(request)
    answer = await _answer(send, request, control.Restarted)
    return models.RestartedDataflow(old=answer.old, new=answer.new, warnings=answer.warnings)


async def _forget_ended(_: models.NoArguments, send: Send) -> models.Dataflows:
    answer = await _answer(send, control.ForgetEnded(), control.DataflowList)
    return models.Dataflows(dataflows=answer.dataflows)


# ---------------------------------------------------------------------- machines and nodes


async def _list_machines(wanted: models.MachineFilter, send: Send) -> models.Machines:
    labels = [_label(text) for text in wanted.label]
    report = await _answer(send, control.ClusterStatus(), control.ClusterReport)
    return models.Machines(
        machines=tuple(
            one
            for one in report.daemons
            if wanted.connected in (None, one.connected)
            and all(one.labels.get(key) == value for key, value in labels)
        )
    )


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise OperationFailed("invalid", f'label: "{text}": expected KEY=VALUE')
    return key, value


async def _get_machine(wanted: models.OneMachine, send: Send) -> DaemonSummary:
    report = await _answer(send, control.ClusterStatus(), control.ClusterReport)
    for one in report.daemons:
        if one.daemon == wanted.machine:
            return one
    known = ", ".join(one.daemon for one in report.daemons) or "none"
    raise OperationFailed("not_found", f'no machine "{wanted.machine}"; known machines: {known}')


async def _status(_: models.NoArguments, send: Send) -> models.Status:
    report = await _answer(send, control.ClusterStatus(), control.ClusterReport)
    return models.Status(
        coordinator=report.coordinator,
        machines=report.daemons,
        active_dataflows=report.active_dataflows,
    )


async def _list_nodes(wanted: models.NodeFilter, send: Send) -> models.Nodes:
    which = None if wanted.dataflow is None else control.DataflowRef.parse(wanted.dataflow)
    found = await _answer(send, control.ListNodes(dataflow=which), control.NodeList)
    return models.Nodes(
        nodes=tuple(
            row
            for row in found.nodes
            if wanted.machine in (None, row.daemon) and wanted.status in (None, row.status)
        )
    )


async def _get_node(wanted: models.OneNode, send: Send) -> NodeSummary:
    request = control.ListNodes(dataflow=control.DataflowRef.parse(wanted.dataflow))
    found = await _answer(send, request, control.NodeList)
    for row in found.nodes:
        if row.node == wanted.node:
            return row
    known = ", ".join(sorted(row.node for row in found.nodes))
    raise OperationFailed(
        "not_found", f'the dataflow has no node "{wanted.node}"; its nodes are: {known}'
    )


async def _stop_node(wanted: models.StopNodeArguments, send: Send) -> models.ChangedNode:
    return await _call(wanted, StopNode(node=wanted.node, grace=wanted.grace), send)


async def _restart_node(wanted: models.RestartNodeArguments, send: Send) -> models.ChangedNode:
    return await _call(wanted, RestartNode(node=wanted.node, grace=wanted.grace), send)


async def _call(wanted: models.OneNode, request: NodeRequest, send: Send) -> models.ChangedNode:
    call = control.CallRunner(
        dataflow=control.DataflowRef.parse(wanted.dataflow), node=wanted.node, request=request
    )
    await _answer(send, call, RunnerReplies)
    return models.ChangedNode(node=wanted.node)


OPERATIONS: Final[tuple[Operation[Any, Any], ...]] = (
    Operation(
        "GET",
        paths.DATAFLOWS,
        "listDataflows",
        "List dataflows, oldest start first.",
        models.DataflowFilter,
        models.Dataflows,
        _list_dataflows,
    ),
    Operation(
        "POST",
        paths.DATAFLOWS,
        "startDataflow",
        "Start a dataflow; answered when its nodes were spawned.",
        models.StartDataflowFile,
        models.StartedDataflow,
        _start_file,
        201,
    ),
    Operation(
        "POST",
        f"{paths.DATAFLOWS}/stop",
        "stopDataflows",
        "Stop the only running dataflow, one of several or all; answered when they have ended.",
        models.StopSome,
        models.StoppedDataflows,
        _stop_some,
    ),
    Operation(
        "POST",
        f"{paths.DATAFLOWS}/restart",
        "restartOnlyDataflow",
        "Restart the only running dataflow, or one of several; answered when it runs again.",
        models.RestartOnly,
        models.RestartedDataflow,
        _restart,
    ),
    Operation(
        "POST",
        f"{paths.DATAFLOWS}/clean",
        "forgetEndedDataflows",
        "Forget ended dataflows and return them.",
        models.NoArguments,
        models.Dataflows,
        _forget_ended,
    ),
    Operation(
        "GET",
        f"{paths.DATAFLOWS}/{{dataflow}}",
        "getDataflow",
        "Get one dataflow.",
        models.OneDataflow,
        control.DataflowSummary,
        _get_dataflow,
    ),
    Operation(
        "GET",
        f"{paths.DATAFLOWS}/{{dataflow}}/specification",
        "getSpecification",
        "Get nodes and edges of a dataflow as it was started, and the machine of each node.",
        models.OneDataflow,
        models.Specification,
        _get_specification,
    ),
    Operation(
        "GET",
        f"{paths.DATAFLOWS}/{{dataflow}}/explanation",
        "explainDataflow",
        "Explain what failed first, what followed, and what a dataflow waits for; also a start "
        "that was refused.",
        models.OneDataflow,
        Explanation,
        _explain,
    ),
    Operation(
        "POST",
        f"{paths.DATAFLOWS}/{{dataflow}}/start",
        "startDataflowAgain",
        "Start an ended dataflow again, as the coordinator has stored it.",
        models.OneDataflow,
        models.StartedDataflow,
        _start_again,
        201,
    ),
    Operation(
        "POST",
        f"{paths.DATAFLOWS}/{{dataflow}}/stop",
        "stopDataflow",
        "Stop a dataflow; answered when it has ended.",
        models.StopOne,
        models.StoppedDataflows,
        _stop_one,
    ),
    Operation(
        "POST",
        f"{paths.DATAFLOWS}/{{dataflow}}/restart",
        "restartDataflow",
        "Stop a dataflow and start it again as stored; answered when it runs again.",
        models.StopOne,
        models.RestartedDataflow,
        _restart,
    ),
    Operation(
        "GET",
        paths.MACHINES,
        "listMachines",
        "List machines.",
        models.MachineFilter,
        models.Machines,
        _list_machines,
    ),
    Operation(
        "GET",
        f"{paths.MACHINES}/{{machine}}",
        "getMachine",
        "Get one machine.",
        models.OneMachine,
        DaemonSummary,
        _get_machine,
    ),
    Operation(
        "GET",
        paths.NODES,
        "listNodes",
        "List nodes, by default of all running dataflows.",
        models.NodeFilter,
        models.Nodes,
        _list_nodes,
    ),
    Operation(
        "GET",
        f"{paths.NODES}/{{node}}",
        "getNode",
        "Get one node.",
        models.OneNode,
        NodeSummary,
        _get_node,
    ),
    Operation(
        "POST",
        f"{paths.NODES}/{{node}}/stop",
        "stopNode",
        "Stop a node permanently; answered when it has ended. Other nodes keep running.",
        models.StopNodeArguments,
        models.ChangedNode,
        _stop_node,
    ),
    Operation(
        "POST",
        f"{paths.NODES}/{{node}}/restart",
        "restartNode",
        "Stop a node, or start a stopped one, regardless of its restart policy; answered when its "
        "new process runs.",
        models.RestartNodeArguments,
        models.ChangedNode,
        _restart_node,
    ),
    Operation(
        "GET",
        paths.STATUS,
        "getStatus",
        "Get the state of the coordinator and its machines.",
        models.NoArguments,
        models.Status,
        _status,
    ),
)
