"""Nodes of a file and its modules, as read and as flat nodes; pure."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field

from dora_config.dataflow import descriptor
from dora_config.dataflow.resolved import SINGLE_OPERATOR_ID, EnvValue, QueuePolicy
from dora_config.dataflow.sources import LogSource, OutputSource, TimerSource
from dora_config.yaml.document import Document, KeyPath


@dataclass(frozen=True)
class SourceNode:
    """A node of a file with its position."""

    node: descriptor.Node
    path: KeyPath
    incomplete: bool = False
    """Outputs may be missing because parts are unreadable."""
    unread_inputs: bool = False
    """Inputs may be missing for the same reason."""
    named: bool = True
    """Whether its id is valid; otherwise the id is the invalid text or a description."""
    repeated: bool = False
    """Whether an earlier node of the file has the same id."""
    module: ModuleFile | None = None
    """The file in `module`; None if the node has none or it cannot be read."""

    @property
    def is_readable(self) -> bool:
        """Return whether the id and all outputs are known."""
        if self.node.module is not None and (self.module is None or self.module.unread_outputs):
            return False
        return self.named and not self.incomplete


@dataclass(frozen=True)
class ModuleFile:
    """A module file; `directory` is relative to the dataflow's (`""`: the same).

    With `unread_ports` or `unread_nodes`, further ports or nodes may exist in unreadable parts.
    """

    document: Document
    directory: str
    interface: descriptor.ModuleInterface
    build: str | None
    nodes: tuple[SourceNode, ...]
    unread_ports: bool = False
    unread_nodes: bool = False

    @property
    def unread_outputs(self) -> bool:
        """Return whether further outputs may exist in unreadable parts."""
        nodes = all(source.is_readable for source in self.nodes)
        return self.unread_ports or self.unread_nodes or not nodes


@dataclass(frozen=True)
class WiredInput:
    """One input with node ids of the flat dataflow; fields are None if not set."""

    source: OutputSource | TimerSource | LogSource
    written: str
    document: Document
    path: KeyPath
    queue_size: int | None = None
    queue_policy: QueuePolicy | None = None
    input_timeout: float | None = None


@dataclass
class FlatNode:
    """One node of the flat dataflow; `inputs` of operators are named `operator/input`."""

    id: str
    node: descriptor.Node
    document: Document
    path: KeyPath
    directory: str
    inputs: dict[str, WiredInput]
    env: dict[str, EnvValue] = field(default_factory=dict)
    deploy: descriptor.Deploy | None = None
    build: str | None = None
    cpu_affinity: list[int] | None = None
    args: str | None = None
    incomplete: bool = False
    unread_inputs: bool = False
    named: bool = True
    repeated: bool = False


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
