"""One document to its nodes: the models of a file as written, every problem collected; pure.

Names of dora 0.x that are still accepted are replaced here, with a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from dora_config.dataflow import descriptor
from dora_config.dataflow.modules import SourceNode, operators_of
from dora_config.dataflow.node_shape import (
    NODE_HINTS,
    ROOT_HINTS,
    node_kind,
    operator_findings,
    shape_findings,
)
from dora_config.yaml.document import OLD_NAMES, Document, KeyPath
from dora_config.yaml.suggest import closest_name
from dora_config.yaml.validation import Finding, describe_place, show, validate

Model = TypeVar("Model", bound=BaseModel)


@dataclass
class NodesFile:
    """What a dataflow or module file holds, as far as it could be read."""

    document: Document
    root: descriptor.Descriptor | descriptor.Module | None = None
    nodes: tuple[SourceNode, ...] = ()
    lost_nodes: bool = False
    """Some node could not be read at all, so its id and outputs are unknown."""
    findings: list[Finding] = field(default_factory=list)


def read_nodes_file(
    document: Document, model: type[descriptor.Descriptor] | type[descriptor.Module]
) -> NodesFile:
    """Reads a document that has problems of neither syntax nor keys."""
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
    checked = validate(model, {**data, "nodes": []}, (), _describe(document), ROOT_HINTS.get)
    file.findings.extend(checked.findings)
    file.root = checked.model
    if not isinstance(raw_nodes, list):
        message = (
            "expected a list of nodes" if raw_nodes is not None else "field `nodes` is required"
        )
        hint = 'a dataflow begins with `nodes:` and a list, one "- id: NAME" for each node'
        misspelt = "nodes" not in data and any(closest_name(key, ["nodes"]) for key in data)
        if not misspelt:
            file.findings.append(Finding(("nodes",), message, hint))
        file.lost_nodes = True
        return file
    nodes = [_read_node(file, raw, ("nodes", index)) for index, raw in enumerate(raw_nodes)]
    file.nodes = tuple(_unique(file, [node for node in nodes if node is not None]))
    file.lost_nodes = len(file.nodes) < len(raw_nodes)
    return file


def _describe(document: Document) -> Callable[[KeyPath], str]:
    return lambda path: describe_place(document.data, path)


def _renamed(file: NodesFile, data: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    """`data` with keys of dora 0.x under the names they have now."""
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
        message = f"`{old}` is the old name of `{new}`"
        file.findings.append(
            Finding(place, message, f"write `{new}`", at_key=True, severity="warning")
        )
    return renamed


def _read_node(file: NodesFile, raw: Any, path: KeyPath) -> SourceNode | None:
    describe = _describe(file.document)
    if not isinstance(raw, dict):
        message = f"{describe(path)}: expected a mapping that begins with `id`, found {show(raw)}"
        file.findings.append(Finding(path, message))
        return None
    raw = _renamed(file, raw, path)
    where = describe(path)
    findings = list(shape_findings(raw, path, where))
    for place, operator in _raw_operators(raw):
        full = (*path, *place)
        findings.extend(operator_findings(operator, full, describe(full)))
    checked = validate(descriptor.Node, raw, path, describe, NODE_HINTS.get)
    findings.extend(checked.findings)
    file.findings.extend(findings)
    node = checked.model
    if node is None:
        return None
    unreadable = any(_hides_outputs(finding, len(path)) for finding in findings)
    if node_kind(raw) is None:
        node = node.model_copy(update={"operator": None, "operators": None, "module": None})
    file.findings.extend(_node_findings(node, path, where))
    return SourceNode(node, path, incomplete=unreadable)


def _hides_outputs(finding: Finding, depth: int) -> bool:
    """Whether outputs may be missing only because of this problem of a node."""
    if finding.severity != "error" or len(finding.path) <= depth:
        return False
    name = str(finding.path[depth])
    return name in _OUTPUT_FIELDS or closest_name(name, _ALL_FIELDS) in _OUTPUT_FIELDS


_OUTPUT_FIELDS = ("outputs", "operator", "operators", "module")
_ALL_FIELDS = tuple(descriptor.Node.model_fields)


def _raw_operators(raw: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    if raw.get("operator") is not None:
        yield ("operator",), raw["operator"]
    if isinstance(raw.get("operators"), list):
        for index, operator in enumerate(raw["operators"]):
            yield ("operators", index), operator


def _node_findings(node: descriptor.Node, path: KeyPath, where: str) -> Iterator[Finding]:
    """What is wrong between the fields of one node that was read."""
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
        yield Finding(path, f"{where}: `operators` must hold at least one operator")
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
    for setting in _LOG_SETTINGS:
        users = [index for index, one in enumerate(operators) if getattr(one, setting) is not None]
        if len(users) > 1:
            message = f"{where}: at most one operator may set `{setting}`"
            yield Finding((*path, users[1], setting), message, at_key=True)


_LOG_SETTINGS = (
    "send_stdout_as",
    "send_logs_as",
    "min_log_level",
    "max_log_size",
    "max_rotated_files",
)


def _queue_findings(
    inputs: Mapping[str, descriptor.Input] | None, path: KeyPath, where: str
) -> Iterator[Finding]:
    for name, wanted in (inputs or {}).items():
        if wanted.queue_size == 0:
            message = f'{where}: input "{name}": queue_size 0 is taken as 1'
            yield Finding((*path, name, "queue_size"), message, severity="warning")


def _repeated(outputs: list[str] | None, path: KeyPath, where: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, output in enumerate(outputs or ()):
        if output in seen:
            message = f'{where}: output "{output}" is listed twice'
            yield Finding((*path, index), message, severity="warning")
        seen.add(output)


def _unique(file: NodesFile, nodes: list[SourceNode]) -> Iterator[SourceNode]:
    first: dict[str, SourceNode] = {}
    for source in nodes:
        other = first.setdefault(source.node.id, source)
        if other is source:
            yield source
            continue
        line = file.document.span((*other.path, "id")).line
        message = f'duplicate node ID "{source.node.id}", first on line {line}: ids must be unique'
        file.findings.append(Finding((*source.path, "id"), message))
