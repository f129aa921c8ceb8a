"""Nodes of a file and its modules, as read and as flat nodes; pure."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field

from dora_config.dataflow import descriptor
from dora_config.dataflow.resolved import SINGLE_OPERATOR_ID, EnvValue
from dora_config.dataflow.sources import LogSource, OutputSource, TimerSource
from dora_config.yaml.document import KeyPath, Place


@dataclass(frozen=True)
class SourceNode:
    """A node of a file with its position."""

    node: descriptor.Node
    place: Place
    module: ModuleFile | None = None
    """The file in `module`, if the node has one."""


@dataclass(frozen=True)
class ModuleFile:
    """A module file; `directory` is relative to the dataflow's (`""`: the same)."""

    place: Place
    root: descriptor.Module
    directory: str
    nodes: tuple[SourceNode, ...]


@dataclass(frozen=True)
class WiredInput:
    """One input: its source with node ids of the flat dataflow, and as it is written."""

    source: OutputSource | TimerSource | LogSource
    written: descriptor.Input
    place: Place


@dataclass
class FlatNode:
    """One node of the flat dataflow; `inputs` of operators are named `operator/input`.

    `node` has the inherited fields and its `args` with the module's parameters; its `env` and
    `inputs` are as written.
    """

    id: str
    node: descriptor.Node
    place: Place
    directory: str
    inputs: dict[str, WiredInput]
    env: dict[str, EnvValue] = field(default_factory=dict)

    def at(self, group: str, name: str | None = None) -> Place:
        """Return the place of a field of the resolved node, or of a value by name inside it."""
        if name is None:
            return self.place.at(group)
        if group == "inputs" and name in self.inputs:
            return self.inputs[name].place
        for prefix, _, path in reversed(programs_of(self.node)):
            if name.startswith(prefix):
                return self.place.at(*path, group, name.removeprefix(prefix))
        raise AssertionError("every name starts with the prefix of the node")


def operators_as_written(node: descriptor.Node) -> list[tuple[descriptor.Operator, KeyPath]]:
    """Return the operators of a node with their paths within the node."""
    if node.operator is not None:
        return [(node.operator, ("operator",))]
    return [(one, ("operators", index)) for index, one in enumerate(node.operators or ())]


def operators_of(node: descriptor.Node) -> list[tuple[str, descriptor.Operator, KeyPath]]:
    """Return the operators of a runtime node: id, operator, path within the node."""
    return [
        (operator.id or SINGLE_OPERATOR_ID, operator, path)
        for operator, path in operators_as_written(node)
    ]


def programs_of(node: descriptor.Node) -> list[tuple[str, descriptor.ProgramFields, KeyPath]]:
    """Return the node and its operators: prefix of the ports, fields, path within the node."""
    operators = ((f"{name}/", one, path) for name, one, path in operators_of(node))
    return [("", node, ()), *operators]


def join_directory(directory: str, path: str) -> str:
    """Return the path of a module's file relative to the dataflow's directory."""
    return posixpath.normpath(posixpath.join(directory, path)) if directory else path
