"""Read the nodes of one document into models, and collect all problems; pure.

Accepted names of dora 0.x are replaced by the present ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from dora_config.dataflow import descriptor
from dora_config.dataflow.modules import SourceNode, operators_of
from dora_config.dataflow.node_shape import (
    KINDS,
    NODE_HINTS,
    ROOT_HINTS,
    operator_findings,
    shape_findings,
)
from dora_config.dataflow.ros2 import bridge_findings
from dora_config.yaml.document import OLD_NAMES, Document, KeyPath
from dora_config.yaml.findings import Finding, describe_place, show
from dora_config.yaml.suggest import closest_name
from dora_config.yaml.validation import validate

Model = TypeVar("Model", bound=BaseModel)


@dataclass
class NodesFile:
    """The readable contents of a dataflow or module file."""

    document: Document
    root: descriptor.Descriptor | descriptor.Module | None = None
    nodes: tuple[SourceNode, ...] = ()
    findings: list[Finding] = field(default_factory=list)


def read_nodes_file(
    document: Document, model: type[descriptor.Descriptor] | type[descriptor.Module]
) -> NodesFile:
    """Read a document; its problems are in `findings`."""
    file = NodesFile(document)
    data = document.data
    if not isinstance(data, dict):
        found = "the file is empty" if data is None else f"found {show(data)}"
        expected = "expected a mapping with a list of `nodes`"
        file.findings.append(
            Finding((), f"{found}: {expected}" if data is None else f"{expected}, {found}")
        )
        return file
    data = _renamed(file, data, ())
    raw_nodes = data.get("nodes")
    descriptor.Node.model_rebuild()  # before `model`, which then contains it and need not repeat it
    checked = validate(model, {**data, "nodes": []}, document, hints=ROOT_HINTS.get)
    file.findings.extend(checked.findings)
    file.root = checked.model
    if not isinstance(raw_nodes, list):
        message = (
            "expected a list of nodes" if raw_nodes is not None else "field `nodes` is required"
        )
        hint = 'a dataflow has a list `nodes:` with one "- id: NAME" for each node'
        misspelt = "nodes" not in data and any(closest_name(key, ["nodes"]) for key in data)
        if not misspelt:
            file.findings.append(Finding(("nodes",), message, hint))
        return file
    nodes = [_read_node(file, raw, ("nodes", index)) for index, raw in enumerate(raw_nodes)]
    file.nodes = tuple(node for node in nodes if node is not None)
    file.findings.extend(_repetitions(file))
    return file


def _renamed(file: NodesFile, data: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    """Return `data` with keys of dora 0.x replaced by the present names."""
    renamed = dict(data)
    for new, old in OLD_NAMES.items():
        if old not in renamed or (new == "debug" and path):
            continue
        value = renamed.pop(old)
        place = (*path, old)
        if new in renamed:
            message = f"`{old}` is the old name of `{new}`: only one of them is allowed"
            file.findings.append(Finding(place, message, at_key=True))
            continue
        renamed[new] = value
    return renamed


def _read_node(file: NodesFile, raw: Any, path: KeyPath) -> SourceNode | None:
    document = file.document
    where = describe_place(document.data, path)
    if not isinstance(raw, dict):
        if path not in document.lost:
            message = f"{where}: expected a mapping that begins with `id`, found {show(raw)}"
            file.findings.append(Finding(path, message))
        return None
    raw = _renamed(file, raw, path)
    checked = validate(descriptor.Node, raw, document, path, hints=NODE_HINTS.get)
    raw = checked.data
    shape = shape_findings(raw, path, where)
    if any((*path, kind) in document.lost for kind in KINDS):  # the kind is unreadable
        shape = (finding for finding in shape if finding.path != path)
    file.findings.extend([*shape, *checked.findings])
    for place, operator in _raw_operators(raw):
        full = (*path, *place)
        file.findings.extend(operator_findings(operator, full, describe_place(document.data, full)))
    if checked.model is None:
        return None
    file.findings.extend(_node_findings(checked.model, path, where))
    bridge = (*path, "ros2")
    if not any(finding.path[: len(bridge)] == bridge for finding in checked.findings):
        node = checked.model
        ports = list(node.inputs or ()), node.outputs or []
        if node.ros2 is not None:
            file.findings.extend(bridge_findings(node.ros2, *ports, bridge, where))
    return SourceNode(checked.model, path)


def _raw_operators(raw: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    if raw.get("operator") is not None:
        yield ("operator",), raw["operator"]
    if isinstance(raw.get("operators"), list):
        for index, operator in enumerate(raw["operators"]):
            yield ("operators", index), operator


def _node_findings(node: descriptor.Node, path: KeyPath, where: str) -> Iterator[Finding]:
    """Yield problems between the fields of one node."""
    if node.operators is not None:
        yield from _operator_list_findings(node.operators, (*path, "operators"), where)
    if node.operator is not None and node.operator.id and "/" in node.operator.id:
        yield Finding((*path, "operator", "id"), f"{where}: an operator id must not contain '/'")
    yield from _repeated(node.outputs, (*path, "outputs"), where)
    yield from _queue_findings(node.inputs, (*path, "inputs"), where)
    for operator_id, operator, place in operators_of(node):
        inner = f'{where}: operator "{operator_id}"'
        yield from _repeated(operator.outputs, (*path, *place, "outputs"), inner)
        yield from _queue_findings(operator.inputs, (*path, *place, "inputs"), inner)
    if node.restart_policy in (None, "never"):
        for field_name in ("max_restarts", "restart_delay", "max_restart_delay", "restart_window"):
            if getattr(node, field_name):
                message = f"{where}: `{field_name}` has no effect while restart_policy is never"
                place = (*path, field_name)
                hint = "add `restart_policy: on-failure`"
                yield Finding(place, message, hint, at_key=True, severity="warning")


def _operator_list_findings(
    operators: list[descriptor.Operator], path: KeyPath, where: str
) -> Iterator[Finding]:
    if not operators:
        yield Finding(path, f"{where}: `operators` must contain at least one operator")
    seen: set[str] = set()
    for index, operator in enumerate(operators):
        if operator.id is None:
            yield Finding((*path, index), f"{where}: operator {index + 1}: field `id` is required")
            continue
        if "/" in operator.id:
            message = f"{where}: operator id \"{operator.id}\" must not contain '/'"
            yield Finding((*path, index, "id"), message)
        if operator.id in seen:
            message = f'{where}: duplicate operator id "{operator.id}": ids must be unique'
            yield Finding((*path, index, "id"), message)
        seen.add(operator.id)
    for setting in descriptor.LOG_SETTINGS:
        users = [index for index, one in enumerate(operators) if getattr(one, setting) is not None]
        if len(users) > 1:
            message = f"{where}: at most one operator may set `{setting}`"
            yield Finding((*path, users[1], setting), message, at_key=True)


def _queue_findings(
    inputs: Mapping[str, descriptor.Input] | None, path: KeyPath, where: str
) -> Iterator[Finding]:
    for name, wanted in (inputs or {}).items():
        if wanted.queue_size == 0:
            message = f'{where}: input "{name}": queue_size 0 is treated as 1'
            yield Finding((*path, name, "queue_size"), message, severity="warning")


def _repeated(outputs: list[str] | None, path: KeyPath, where: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, output in enumerate(outputs or ()):
        if output in seen:
            message = f'{where}: output "{output}" is listed twice'
            yield Finding((*path, index), message, severity="warning")
        seen.add(output)


def _repetitions(file: NodesFile) -> Iterator[Finding]:
    """Yield a problem for each node that repeats an earlier id."""
    first: dict[str, SourceNode] = {}
    for source in file.nodes:
        other = first.setdefault(source.node.id, source)
        if other is not source:
            line = file.document.span((*other.path, "id")).line
            message = (
                f'duplicate node ID "{source.node.id}", first on line {line}: ids must be unique'
            )
            yield Finding((*source.path, "id"), message)
