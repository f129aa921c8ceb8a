"""Operations of the REST API: arguments in, control requests out, their answers in, a result out.

An operation sends its requests through a function, so that a coordinator, a connection to one and
the runs of one computer can answer them. :data:`OPERATIONS` is the whole API.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, get_type_hints

from pydantic import BaseModel, ValidationError

from dora_config.errors import ConfigError
from dora_config.frozen import first_problem
from dora_config.history.explanation import Explanation
from dora_config.protocol import control
from dora_config.protocol.calls import NodeRequest
from dora_config.protocol.dataflow import DataflowSpec, Origin, workspace_of
from dora_config.protocol.envelope import Message, Request
from dora_config.protocol.fleet import (
    ApplyFleet,
    CompareFleet,
    DesiredDataflow,
    Fleet,
    FleetComparison,
    FleetHistory,
    FleetReport,
    GetFleet,
    GetFleetHistory,
    PauseFleet,
    RollBackFleet,
    for_fleet,
    with_env,
)
from dora_config.protocol.rest import models, paths
from dora_config.protocol.rest.errors import OperationFailed
from dora_config.protocol.rest.models import StartDataflowFile
from dora_config.protocol.runner import RestartNode, StopNode
from dora_config.protocol.snapshot import DaemonSummary, NodeSummary

A = TypeVar("A", bound=models.Arguments)
T = TypeVar("T", bound=Message)
R = TypeVar("R", bound=BaseModel)
Run = TypeVar("Run", bound=Callable[..., Awaitable[BaseModel]])


class Send(Protocol):
    """Sends a request and returns its answer; its errors are those of the operation."""

    async def __call__(self, request: Request[T], /) -> T: ...


_FILE_NAME = "dataflow.yml"
# JSON allows these characters in texts; YAML refuses them or reads them as line breaks.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff]")


def specification(wanted: StartDataflowFile) -> tuple[DataflowSpec, tuple[str, ...]]:
    """Return the specification and warnings; raises OperationFailed."""
    from dora_config.dataflow.loader import parse_dataflow  # slow to import, and rarely needed

    directory, origin = _directory(wanted.directory)
    given = wanted.descriptor
    text = given if isinstance(given, str) else _as_yaml(given)
    path = Path(_FILE_NAME) if directory is None else directory / _FILE_NAME
    try:
        loaded = parse_dataflow(text, path=path, environ=wanted.env)
        name = wanted.name or loaded.resolved.name
        spec = DataflowSpec(
            resolved=loaded.resolved,
            descriptor=loaded.descriptor_dict,
            name=name,
            origin=origin,
            workspace=workspace_of(name or "dataflow", f"{directory}\0{name}"),
            env_overrides=wanted.env,
            exit_when_nodes_finish=loaded.resolved.exit_when_nodes_finish,
            offline=wanted.offline,
        )
    except ConfigError as error:
        raise OperationFailed("invalid", f"invalid dataflow:\n{error}") from error
    except ValidationError as error:
        raise OperationFailed("invalid", first_problem(error)) from error
    return spec, tuple(str(problem) for problem in loaded.warnings)


def _as_yaml(descriptor: dict[str, Any]) -> str:
    text = json.dumps(descriptor, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _directory(text: str) -> tuple[Path | None, Origin]:
    """Return the folder of relative paths and its identity; raises OperationFailed."""
    if not text:
        return None, Origin()
    path = Path(text)
    if not path.is_absolute():
        raise OperationFailed("invalid", f'directory: "{text}" is not an absolute path')
    try:
        if path.is_dir():
            directory = path.resolve()
            return directory, Origin.of(directory)
    except (OSError, ValueError):
        pass  # reported below
    raise OperationFailed(
        "invalid",
        f'directory: "{text}" is not a folder on the coordinator\'s machine; omit it if the '
        "nodes need no files of that folder",
    )


@dataclass(frozen=True, slots=True)
class Operation(Generic[A, R]):
    """One method of one path; arguments that are not in the path are in the query or the body."""

    method: Literal["GET", "POST"]
    path: str
    """Path with names of arguments in braces, whose values are percent-encoded."""
    name: str
    summary: str
    arguments: type[A]
    result: type[R]
    """An answer of `protocol/control.py` is written without its ``kind``."""
    run: Callable[[A, Send], Awaitable[R]]
    """Raises OperationFailed, and what its function raises."""
    status: int = 200

    async def result_json(self, arguments: A, send: Send) -> str:
        """Run it and return the JSON text of its result; raises as `run`."""
        return (await self.run(arguments, send)).model_dump_json(exclude={"kind"})

    def parse(self, in_path: Mapping[str, str], others: Mapping[str, object]) -> A:
        """Return the arguments in the path, and in the query or body; raises OperationFailed."""
        for key in in_path.keys() & others.keys():
            raise OperationFailed("invalid", f'"{key}" is in the path already')
        try:
            return self.arguments.model_validate({**others, **in_path})
        except ValidationError as problems:
            sentence, first = first_problem(problems), problems.errors()[0]
            if first["type"] == "extra_forbidden":
                known = ", ".join(self.arguments.model_fields) or "none"
                name = ".".join(map(str, first["loc"]))
                sentence = f'unknown argument "{name}"; arguments of {self.path}: {known}'
            raise OperationFailed("invalid", sentence) from problems


OPERATIONS: Final[list[Operation[Any, Any]]] = []


def _operation(
    method: Literal["GET", "POST"], path: str, name: str, *, status: int = 200
) -> Callable[[Run], Run]:
    """Add a function to the operations; its docstring is the summary."""

    def add(run: Run) -> Run:
        arguments, _, result = get_type_hints(run).values()
        summary = " ".join((run.__doc__ or "").split())
        OPERATIONS.append(Operation(method, path, name, summary, arguments, result, run, status))
        return run

    return add


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


# ------------------------------------------------------------------------------- dataflows


@_operation("GET", paths.DATAFLOWS, "listDataflows")
async def _list_dataflows(wanted: models.DataflowFilter, send: Send) -> control.DataflowList:
    """List dataflows, oldest start first."""
    found = await send(control.ListDataflows())
    return control.DataflowList(
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


@_operation("POST", paths.DATAFLOWS, "startDataflow", status=201)
async def _start_file(wanted: models.StartDataflowFile, send: Send) -> control.Started:
    """Start a dataflow; answered when its nodes were spawned."""
    spec, warnings = await asyncio.to_thread(specification, wanted)  # it reads files
    answer = await send(control.StartDataflow(spec=spec))
    return answer.model_copy(update={"warnings": (*warnings, *answer.warnings)})


@_operation("POST", f"{paths.DATAFLOWS}/stop", "stopDataflows")
async def _stop_some(wanted: models.StopSome, send: Send) -> control.Ended:
    """Stop the only running dataflow, one of several or all; answered when they have ended."""
    if wanted.all and wanted.dataflow is not None:
        raise OperationFailed("invalid", '"all" and "dataflow" cannot be used together')
    return await _stop(wanted, send)


@_operation("POST", f"{paths.DATAFLOWS}/restart", "restartOnlyDataflow")
async def _restart_only(wanted: models.RestartOnly, send: Send) -> control.Restarted:
    """Restart the only running dataflow, or one of several; answered when it runs again."""
    return await _restart(wanted, send)


@_operation("POST", f"{paths.DATAFLOWS}/clean", "forgetEndedDataflows")
async def _forget_ended(_: models.NoArguments, send: Send) -> control.DataflowList:
    """Forget ended dataflows and return them."""
    return await send(control.ForgetEnded())


@_operation("GET", f"{paths.DATAFLOWS}/{{dataflow}}", "getDataflow")
async def _get_dataflow(wanted: models.OneDataflow, send: Send) -> control.DataflowSummary:
    """Get one dataflow."""
    _, row = await _find(wanted.dataflow, send)
    return row


async def _find(dataflow: str, send: Send) -> tuple[control.Described, control.DataflowSummary]:
    """Return a dataflow and its row in the list, which may have been cleaned meanwhile."""
    found = await send(control.DescribeDataflow(dataflow=dataflow))
    rows = await send(control.ListDataflows())
    for row in rows.dataflows:
        if row.uuid == found.uuid:
            return found, row
    raise OperationFailed("not_found", f"the dataflow {found.uuid} was removed")


@_operation("GET", f"{paths.DATAFLOWS}/{{dataflow}}/specification", "getSpecification")
async def _get_specification(wanted: models.OneDataflow, send: Send) -> control.Described:
    """Get nodes and edges of a dataflow as it was started, and the machine of each node."""
    return await send(control.DescribeDataflow(dataflow=wanted.dataflow))


@_operation("GET", f"{paths.DATAFLOWS}/{{dataflow}}/explanation", "explainDataflow")
async def _explain(wanted: models.OneDataflow, send: Send) -> Explanation:
    """Explain what failed first, what followed, and what a dataflow waits for; also a start
    that was refused.
    """
    return (await send(control.Explain(dataflow=wanted.dataflow))).explanation


@_operation("POST", f"{paths.DATAFLOWS}/{{dataflow}}/start", "startDataflowAgain", status=201)
async def _start_again(wanted: models.OneDataflow, send: Send) -> control.Started:
    """Start an ended dataflow again, as the coordinator has stored it."""
    found, row = await _find(wanted.dataflow, send)
    if row.ended_ago is None:
        shown = f'"{row.name}" ({row.uuid})' if row.name else row.uuid
        raise OperationFailed(
            "conflict", f"dataflow {shown} is running already; restart it instead"
        )
    return await send(control.StartDataflow(spec=found.spec))


@_operation("POST", f"{paths.DATAFLOWS}/{{dataflow}}/stop", "stopDataflow")
async def _stop_one(wanted: models.StopOne, send: Send) -> control.Ended:
    """Stop a dataflow; answered when it has ended."""
    return await _stop(wanted, send)


@_operation("POST", f"{paths.DATAFLOWS}/{{dataflow}}/restart", "restartDataflow")
async def _restart_one(wanted: models.StopOne, send: Send) -> control.Restarted:
    """Stop a dataflow and start it again as stored; answered when it runs again."""
    return await _restart(wanted, send)


async def _stop(wanted: models.StopOne | models.StopSome, send: Send) -> control.Ended:
    _require_one_manner(wanted)
    return await send(control.StopDataflow(**wanted.model_dump()))


async def _restart(wanted: models.StopOne | models.RestartOnly, send: Send) -> control.Restarted:
    _require_one_manner(wanted)
    return await send(control.RestartDataflow(**wanted.model_dump()))


def _require_one_manner(wanted: models.StopOne | models.StopSome | models.RestartOnly) -> None:
    if wanted.force and wanted.grace is not None:
        raise OperationFailed("invalid", '"force" and "grace" cannot be used together')


# ---------------------------------------------------------------------- machines and nodes


@_operation("GET", paths.MACHINES, "listMachines")
async def _list_machines(wanted: models.MachineFilter, send: Send) -> control.ClusterReport:
    """List machines, with the state of the coordinator."""
    labels = [_label(text) for text in wanted.label]
    report = await send(control.ClusterStatus())
    fitting = tuple(
        one
        for one in report.machines
        if wanted.connected in (None, one.connected)
        and all(one.labels.get(key) == value for key, value in labels)
    )
    return report.model_copy(update={"machines": fitting})


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise OperationFailed("invalid", f'label: "{text}": expected KEY=VALUE')
    return key, value


@_operation("GET", f"{paths.MACHINES}/{{machine}}", "getMachine")
async def _get_machine(wanted: models.OneMachine, send: Send) -> DaemonSummary:
    """Get one machine."""
    report = await send(control.ClusterStatus())
    for one in report.machines:
        if one.daemon == wanted.machine:
            return one
    known = ", ".join(one.daemon for one in report.machines) or "none"
    raise OperationFailed("not_found", f'no machine "{wanted.machine}"; known machines: {known}')


@_operation("GET", paths.NODES, "listNodes")
async def _list_nodes(wanted: models.NodeFilter, send: Send) -> control.NodeList:
    """List nodes, by default of all running dataflows."""
    found = await send(control.ListNodes(dataflow=wanted.dataflow))
    return control.NodeList(
        nodes=tuple(
            row
            for row in found.nodes
            if wanted.machine in (None, row.daemon) and wanted.status in (None, row.status)
        )
    )


@_operation("GET", f"{paths.NODES}/{{node}}", "getNode")
async def _get_node(wanted: models.OneNode, send: Send) -> NodeSummary:
    """Get one node."""
    uuid = (await send(control.DescribeDataflow(dataflow=wanted.dataflow))).uuid
    found = await send(control.ListNodes(dataflow=uuid))
    for row in found.nodes:
        if row.node == wanted.node:
            return row
    known = ", ".join(sorted(row.node for row in found.nodes))
    raise OperationFailed(
        "not_found", f'the dataflow has no node "{wanted.node}"; its nodes are: {known}'
    )


@_operation("POST", f"{paths.NODES}/{{node}}/stop", "stopNode")
async def _stop_node(wanted: models.StopNodeArguments, send: Send) -> models.ChangedNode:
    """Stop a node permanently; answered when it has ended. Other nodes keep running."""
    return await _call(wanted, StopNode(**_changed(wanted), grace=wanted.grace), send)


@_operation("POST", f"{paths.NODES}/{{node}}/restart", "restartNode")
async def _restart_node(wanted: models.RestartNodeArguments, send: Send) -> models.ChangedNode:
    """Stop a node, or start a stopped one, regardless of its restart policy; answered when its
    new process runs.
    """
    return await _call(wanted, RestartNode(**_changed(wanted), grace=wanted.grace), send)


def _changed(wanted: models.ChangeNodeArguments) -> dict[str, Any]:
    return wanted.model_dump(include={"node", "hold_limit", "force"})


async def _call(wanted: models.OneNode, request: NodeRequest, send: Send) -> models.ChangedNode:
    await send(control.CallRunner(dataflow=wanted.dataflow, node=wanted.node, request=request))
    return models.ChangedNode(node=wanted.node)


# ----------------------------------------------------------------------------------- fleet


@_operation("GET", paths.FLEET, "getFleet")
async def _get_fleet(_: models.NoArguments, send: Send) -> FleetReport:
    """Get what the machines should run (`desired`) and what they run (`observed`)."""
    return await send(GetFleet())


@_operation("GET", f"{paths.FLEET}/history", "getFleetHistory")
async def _fleet_history(_: models.NoArguments, send: Send) -> FleetHistory:
    """Get the generations of the fleet: author, time, changes and outcome."""
    return await send(GetFleetHistory())


@_operation("POST", f"{paths.FLEET}/diff", "diffFleet")
async def _diff_fleet(wanted: models.FleetFile, send: Send) -> FleetComparison:
    """Compare what should run with what runs, node by node."""
    return await send(CompareFleet(fleet=_fleet(wanted), only=wanted.only))


@_operation("POST", f"{paths.FLEET}/apply", "applyFleet", status=201)
async def _apply_fleet(wanted: models.ApplyFleetFile, send: Send) -> FleetReport:
    """Change the fleet; answered at once, the coordinator carries it out."""
    facts = wanted.model_dump(include={"only", "generation", "by", "force"})
    return await send(ApplyFleet(fleet=_fleet(wanted), **facts))


def _fleet(wanted: models.FleetFile) -> Fleet:
    """Return the desired fleet; raises OperationFailed."""
    found = []
    for name, one in wanted.dataflows.items():
        if one.machines is not None and one.labels is not None:
            raise OperationFailed("invalid", f'dataflow "{name}": give "machines" or "labels"')
        file = StartDataflowFile(
            descriptor=one.descriptor, directory=one.directory, name=name, offline=one.offline
        )
        spec, _ = specification(file)
        spec = for_fleet(with_env(spec, one.env)).model_copy(update={"params": one.params})
        found.append(DesiredDataflow(spec=spec, machines=one.machines, labels=one.labels))
    return Fleet(dataflows=tuple(found), rollout=wanted.rollout)


@_operation("POST", f"{paths.FLEET}/rollback", "rollBackFleet", status=201)
async def _roll_back_fleet(wanted: models.FleetRollBack, send: Send) -> FleetReport:
    """Apply an earlier generation again."""
    return await send(RollBackFleet(to=wanted.to, by=wanted.by))


@_operation("POST", f"{paths.FLEET}/pause", "pauseFleet")
async def _pause_fleet(wanted: models.FleetOperator, send: Send) -> FleetReport:
    """Stop changing machines; what runs keeps running."""
    return await send(PauseFleet(paused=True, by=wanted.by))


@_operation("POST", f"{paths.FLEET}/resume", "resumeFleet")
async def _resume_fleet(wanted: models.FleetOperator, send: Send) -> FleetReport:
    """Continue a roll-out that was paused or failed."""
    return await send(PauseFleet(paused=False, by=wanted.by))


@_operation("GET", paths.STATUS, "getStatus")
async def _get_status(_: models.NoArguments, send: Send) -> control.ClusterReport:
    """Get the state of the coordinator and its machines."""
    return await send(control.ClusterStatus())
