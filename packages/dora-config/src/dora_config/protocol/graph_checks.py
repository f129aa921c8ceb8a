"""Checks of changed nodes and edges that both the coordinator and the runners make; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dora_config.dataflow.resolved import ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import InputSource, OutputSource, parse_source
from dora_config.errors import DoraError
from dora_config.yaml.suggest import closest

if TYPE_CHECKING:  # `dora run` starts faster without this module
    from dora_config.protocol.runner import ConnectInput, DisconnectInput, EdgeChange


class InvalidChange(DoraError):
    """A change contradicts the running dataflow. All functions here raise it."""


def source_of(change: EdgeChange) -> InputSource:
    try:
        return parse_source(f"{change.source}/{change.output}")
    except ValueError as error:
        raise InvalidChange(str(error)) from None


def input_of(change: ConnectInput) -> ResolvedInput:
    return ResolvedInput(source=source_of(change), **change.queue_settings())


def require_output(node: ResolvedNode, source: OutputSource, where: str) -> None:
    """Check that the source of an input is an output of ``node``."""
    if source.output not in node.outputs:
        listed = ", ".join(node.outputs) or "none"
        raise InvalidChange(
            f"output `{source}` mapped to input `{where}` does not exist; the outputs of"
            f' "{node.id}": {listed}{closest(source.output, node.outputs)}'
        )


def require_edge(target: ResolvedNode, change: DisconnectInput) -> None:
    """Check that the input reads the source that is to be disconnected."""
    present = target.inputs.get(change.input)
    expected = source_of(change)
    if present is None or present.source != expected:
        reads = "nothing" if present is None else f"`{present.source}`"
        raise InvalidChange(
            f"input `{target.id}/{change.input}` does not read `{expected}`, it reads {reads}"
        )


def require_same_ports(old: ResolvedNode, new: ResolvedNode, read: Iterable[str]) -> None:
    """Check that a replacement has the inputs of the old node and the outputs that are ``read``."""
    have, want = _wired(old), _wired(new)
    if have != want:
        raise InvalidChange(
            f'the new node "{new.id}" must have the same inputs as the old one: {have};'
            f" it has {want}; change edges with `dora node connect` and `disconnect`"
        )
    if missing := sorted(set(read) - set(new.outputs)):
        raise InvalidChange(
            f'the new node "{new.id}" lacks outputs that other nodes read: {", ".join(missing)}'
        )


def _wired(node: ResolvedNode) -> str:
    inputs = sorted(node.inputs.items())
    return ", ".join(f"{name} <- {one.source}" for name, one in inputs) or "none"
