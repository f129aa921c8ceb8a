"""Nodes of a file and its modules, as read and as flat nodes; pure."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field

from dora_config.dataflow import descriptor
from dora_config.dataflow.resolved import SINGLE_OPERATOR_ID, EnvValue
from dora_config.dataflow.sources import LogSource, OutputSource, TimerSource
from dora_config.yaml.document import Document, KeyPath


@dataclass(frozen=True)
class SourceNode:
    """A node of a file with its position."""

    node: descriptor.Node
    path: KeyPath
    module: ModuleFile | None = None
    """The file in `module`, if the node has one."""


@dataclass(frozen=True)
class ModuleFile:
    """A module file; `directory` is relative to the dataflow's (`""`: the same)."""

    document: Document
    directory: str
    interface: descriptor.ModuleInterface
    build: str | None
    nodes: tuple[SourceNode, ...]


@dataclass(frozen=True)
class WiredInput:
    """One input: its source with node ids of the flat dataflow, and as it is written."""

    source: OutputSource | TimerSource | LogSource
    written: descriptor.Input
    document: Document
    path: KeyPath


@dataclass
class FlatNode:
    """One node of the flat dataflow; `inputs` of operators are named `operator/input`.

    `node` has the inherited fields and its `args` with the module's parameters; its `env` and
    `inputs` are as written.
    """

    id: str
    node: descriptor.Node
    document: Document
    path: KeyPath
    directory: str
    inputs: dict[str, WiredInput]
    env: dict[str, EnvValue] = field(default_factory=dict)


def operators_of(node: descriptor.Node) -> list[tuple[str, descriptor.Operator, KeyPath]]:
    """Return the operators of a runtime node: id, operator, path within the node."""
    if node.operator is not None:
        return [(node.operator.id or SINGLE_OPERATOR_ID, node.operator, ("operator",))]
    return [
        (operator.id, operator, ("operators", index))
        for index, operator in enumerate(node.operators or ())
        if operator.id is not None
    ]


def join_directory(directory: str, path: str) -> str:
    """Return the path of a module's file relative to the dataflow's directory."""
    return posixpath.normpath(posixpath.join(directory, path)) if directory else path
