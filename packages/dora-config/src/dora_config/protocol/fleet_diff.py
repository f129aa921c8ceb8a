"""Difference between a running dataflow and the desired one, and the next step towards it; pure.

The next step is derived from what runs, so that an apply continues after any interruption.
"""

from __future__ import annotations

from collections.abc import Iterator

from dora_config.dataflow.resolved import EnvValue, ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import OutputSource
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet import NodeDifference
from dora_config.protocol.runner import (
    AddNode,
    ConnectInput,
    DisconnectInput,
    NodeLocation,
    RemoveNode,
    ReplaceNode,
    SetParam,
)

Step = DisconnectInput | RemoveNode | ReplaceNode | AddNode | ConnectInput | SetParam

_NOT_COMPARED = frozenset({"format", "id", "name", "description", "inputs", "inherited_env"})
_CODE_FIELDS = {"path", "path_sha256", "git", "build"}


def restart_reason(running: DataflowSpec, desired: DataflowSpec) -> str | None:
    """Return why the whole dataflow must be restarted; None if its nodes can be changed."""
    old, new = running.resolved, desired.resolved
    for what, before, after in (
        ("health_check_interval", old.health_check_interval, new.health_check_interval),
        ("debug inspection", old.debug_inspection, new.debug_inspection),
        ("env given at its start", running.env_overrides, desired.env_overrides),
        ("exit_when_nodes_finish", running.exit_when_nodes_finish, desired.exit_when_nodes_finish),
        ("offline", running.offline, desired.offline),
        ("uv", running.uv, desired.uv),
    ):
        if before != after:
            return f"{what} changes"
    if gone := sorted(old.env.keys() - new.env.keys()):
        return f"the dataflow's env loses {', '.join(gone)}"
    before_by_id = {node.id: node for node in old.nodes}
    staying = [node for node in new.nodes if node.id in before_by_id]
    if not staying:
        return "it keeps none of its nodes"
    for node in staying:
        was = before_by_id[node.id]
        if (was.deploy.machine, was.deploy.labels) != (node.deploy.machine, node.deploy.labels):
            return f'node "{node.id}" moves from {_place(was)} to {_place(node)}'
        if was.is_dynamic != node.is_dynamic:
            return f'node "{node.id}" changes between dynamic and started by dora'
        if was.inputs and not any(_is_kept(was, node, name) for name in was.inputs):
            return f'node "{node.id}" would lose all of its inputs at once, which ends it'
    return None


def _place(node: ResolvedNode) -> str:
    if node.deploy.machine is not None:
        return f'machine "{node.deploy.machine}"'
    labels = ", ".join(f"{key}={value}" for key, value in node.deploy.labels.items())
    return f"labels {labels}" if labels else "the unnamed daemon"


def _is_kept(was: ResolvedNode, node: ResolvedNode, name: str) -> bool:
    """Return whether a node keeps an input; the source may be replaced but not removed."""
    return name in node.inputs and _wire(was.inputs[name]) == _wire(node.inputs[name])


def _wire(one: ResolvedInput) -> tuple[object, ...]:
    return (one.source, one.queue_size, one.queue_policy, one.input_timeout, one.compress)


def differences(running: DataflowSpec, desired: DataflowSpec) -> tuple[NodeDifference, ...]:
    """Return the differences, node by node."""
    before = {node.id: node for node in running.resolved.nodes}
    after = {node.id: node for node in desired.resolved.nodes}
    found = [NodeDifference(node=one, action="added") for one in after if one not in before]
    found += [NodeDifference(node=one, action="removed") for one in before if one not in after]
    for name in before.keys() & after.keys():
        was, node = before[name], after[name]
        if changed := _changed_fields(running, desired, name):
            found.append(NodeDifference(node=name, action="replaced", detail=", ".join(changed)))
        if wires := _rewired(was, node):
            found.append(NodeDifference(node=name, action="rewired", detail=", ".join(wires)))
    for name, key, value in _params(running, desired):
        detail = f"{key} = {value!r}"
        found.append(NodeDifference(node=name, action="parameters", detail=detail))
    order = {node: index for index, node in enumerate((*after, *before))}
    return tuple(sorted(found, key=lambda one: order[one.node]))


def changes_by_hand(desired: DataflowSpec, running: DataflowSpec) -> tuple[NodeDifference, ...]:
    """Return the changes of a dataflow since it was as desired, in the order of its nodes."""
    found = [one for one in differences(desired, running) if one.action != "parameters"]
    nodes = {node.id for node in running.resolved.nodes}
    for node, values in desired.params.items():
        present = running.params.get(node, {})
        for key, value in values.items() if node in nodes else ():
            if key not in present:
                detail = f"{key} deleted"
            elif present[key] != value:
                detail = f"{key} = {present[key]!r}"
            else:
                continue
            found.append(NodeDifference(node=node, action="parameters", detail=detail))
    return tuple(found)


def _changed_fields(running: DataflowSpec, desired: DataflowSpec, name: str) -> list[str]:
    """Return in a few words which change requires another process of a node."""
    was, node = running.resolved.node(name), desired.resolved.node(name)
    old, new = _comparable(was), _comparable(node)
    fields = [one for one in new if old.get(one) != new[one]]
    found = []
    if running.code.get(name, "") != desired.code.get(name, ""):
        found.append("code")
    for one in fields:
        if one == "env":
            found += [f"env {variable}" for variable in _changed_env(was.env, node.env)]
        elif one == "deploy":
            if was.deploy.distribute == node.deploy.distribute:
                found.append("working_dir")
            elif "code" not in found:
                found.append("distribute")
        elif one in _CODE_FIELDS:
            found.append(one)
        else:
            found.append(one.replace("_", " "))
    return found


def _comparable(node: ResolvedNode) -> dict[str, object]:
    values = {name: getattr(node, name) for name in type(node).model_fields}
    values["operators"] = tuple(
        one.model_copy(update={"inputs": {}}) for one in node.operators
    )  # the node has the inputs of its operators
    return {name: value for name, value in values.items() if name not in _NOT_COMPARED}


def _changed_env(old: dict[str, EnvValue], new: dict[str, EnvValue]) -> list[str]:
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _rewired(was: ResolvedNode, node: ResolvedNode) -> list[str]:
    found = []
    for name in sorted(was.inputs.keys() | node.inputs.keys()):
        old, new = was.inputs.get(name), node.inputs.get(name)
        if old is None and new is not None:
            found.append(f"{name} <- {new.source}")
        elif new is None and old is not None:
            found.append(f"{name} </- {old.source}")
        elif old is not None and new is not None and _wire(old) != _wire(new):
            same = old.source == new.source
            found.append(f"{name}: queue" if same else f"{name} <- {new.source}")
    return found


def _params(running: DataflowSpec, desired: DataflowSpec) -> Iterator[tuple[str, str, object]]:
    """Yield the parameters that the desired dataflow names and that have another value."""
    nodes = {node.id for node in desired.resolved.nodes}
    for node, values in desired.params.items():
        present = running.params.get(node, {})
        for key, value in values.items():
            if node in nodes and (key not in present or present[key] != value):
                yield node, key, value


def next_step(running: DataflowSpec, desired: DataflowSpec) -> Step | None:
    """Return the next change of a running dataflow; None: it is as desired.

    Edges are removed first and added last, so that no step refers to what is missing.
    """
    before = {node.id: node for node in running.resolved.nodes}
    after = {node.id: node for node in desired.resolved.nodes}
    for name, node in after.items():
        for input_id, one in before[name].inputs.items() if name in before else ():
            if not _is_kept(before[name], node, input_id):
                source, output = str(one.source).split("/", 1)
                return DisconnectInput(source=source, output=output, target=name, input=input_id)
    for name in before:
        if name not in after:
            return RemoveNode(node=name)
    for name, node in after.items():
        if name in before and _changed_fields(running, desired, name):
            kept = node.model_copy(update={"inputs": before[name].inputs})
            place = desired.places.get(name, NodeLocation())
            return ReplaceNode(node=kept, place=place, code=desired.code.get(name, ""))
    for name, node in after.items():
        if name not in before:
            present = {
                input_id: one
                for input_id, one in node.inputs.items()
                if not isinstance(one.source, OutputSource)
                or one.source.node in before
                or one.source.node == name
            }
            place = desired.places.get(name, NodeLocation())
            added = node.model_copy(update={"inputs": present})
            return AddNode(node=added, place=place, code=desired.code.get(name, ""))
    for name, node in after.items():
        for input_id, one in node.inputs.items():
            if input_id not in before[name].inputs:
                source, output = str(one.source).split("/", 1)
                return ConnectInput(
                    source=source,
                    output=output,
                    target=name,
                    input=input_id,
                    **one.queue_settings(),
                )
    for name, key, value in _params(running, desired):
        return SetParam(node=name, key=key, value=value)
    return None
