"""Kinds of nodes that plug-ins add: a block such as `ros2:` in the place of `path`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dora_config import plugins
from dora_config.dataflow.fields import Written
from dora_config.errors import Problem
from dora_config.yaml.document import KeyPath, Place

GROUP: plugins.Group = "dora.node_kinds"


def _nothing(*_: Any) -> Iterator[Any]:
    yield from ()


@dataclass(frozen=True, slots=True)
class NodeKind:
    """Value of an entry point of the group `dora.node_kinds`, whose name is that of the field."""

    model: type[Written]
    """Model of the block; its docstring describes it."""
    module: str
    """Program of the nodes, for `python -m`."""
    variable: str
    """Environment variable of the node with the resolved block as JSON."""
    needs: tuple[str, ...] = ()
    """Modules that the interpreter of the node must have."""
    problems: Callable[[Any, list[str], list[str], Place, str], Iterator[Problem]] = _nothing
    """Yields problems; called with the block, inputs, outputs, the place of the block, and the name
    of the node in messages."""
    resolve: Callable[[Any, list[str], list[str]], Any] = lambda block, inputs, outputs: block
    """Returns the block for the node; called with the block, inputs and outputs."""
    warnings: Callable[[Any, Path, Mapping[str, Any]], Iterator[tuple[KeyPath, str]]] = _nothing
    """Yields warnings; called with the block, the folder of the dataflow and `env`, on the machine
    that has the file."""
    types: Callable[[Mapping[str, Any]], Mapping[str, str]] = lambda node: {}
    """Returns types of outputs (`NODE/OUTPUT`) for viewers; called with a recorded node."""
    add_rules: Callable[[dict[str, Any]], None] = lambda schema: None
    """Adds rules across fields to the JSON Schema of the block."""


@dataclass(frozen=True, slots=True)
class Block:
    """The block of a node, as written."""

    name: str
    kind: NodeKind
    value: Written


def load(name: str) -> NodeKind:
    """Return a kind. Raises PluginError, also if it is not installed."""
    kind: NodeKind = plugins.load(GROUP, name)
    return kind


def names() -> list[str]:
    """Return the names of the installed kinds."""
    return plugins.installed().names(GROUP)


def is_name(name: object) -> bool:
    """Return whether a field is a kind that is installed, refused, or in a wheel of dora."""
    if name in plugins.known_names(GROUP):
        return True
    try:
        return plugins.installed().find(GROUP, str(name)) is not None
    except plugins.PluginError:
        return True
