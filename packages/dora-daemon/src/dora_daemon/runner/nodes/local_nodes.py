"""The nodes of this runner, with their programs, logs and parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from dora_config.dataflow.resolved import ResolvedInput, ResolvedNode
from dora_config.protocol.run_plan import CurrentNode, NodeLocation
from dora_daemon.runner.logs.logs import NodeLog
from dora_daemon.runner.process.prepare import PreparedNode


class LocalNodes:
    """Tables by node id; all but ``logs`` have an entry for every node."""

    def __init__(
        self,
        prepared: Iterable[PreparedNode],
        params: Mapping[str, Mapping[str, Any]],
        places: Mapping[str, NodeLocation] = MappingProxyType({}),
        revision: int = 0,
    ) -> None:
        """``revision``: number of changes of the nodes before."""
        self.prepared = {node.spec.id: node for node in prepared}
        self.specs = {node: prepared.spec for node, prepared in self.prepared.items()}
        self.logs: dict[str, NodeLog] = {}
        self.revision = revision
        self._places = dict(places)
        self._code: dict[str, str] = {}
        self.params: dict[str, dict[str, Any]] = {
            node: dict(values) for node, values in params.items()
        }

    def set(self, prepared: PreparedNode, log: NodeLog) -> None:
        """Add a node, or replace its program and log."""
        node = prepared.spec.id
        self.specs[node] = prepared.spec
        self.prepared[node] = prepared
        if (former := self.logs.pop(node, None)) is not None:
            former.close()
        self.logs[node] = log

    def locate(self, node: str, place: NodeLocation, code: str) -> None:
        """Note where the program of a changed node is, and the digest of its code."""
        self.revision += 1
        self._places[node] = place
        self._code[node] = code

    def set_inputs(self, node: str, inputs: dict[str, ResolvedInput]) -> None:
        """Change the inputs of a node; they are part of the next configuration it gets."""
        self.revision += 1
        self.specs[node] = self.specs[node].model_copy(update={"inputs": inputs})

    def current(self) -> tuple[CurrentNode, ...]:
        """Return the nodes as they run now."""
        return tuple(
            CurrentNode(
                node=spec,
                place=self._places.get(node, NodeLocation()),
                code=self._code.get(node, ""),
            )
            for node, spec in self.specs.items()
        )

    def remove(self, node: str) -> None:
        """Remove a node with everything that is known about it."""
        self.revision += 1
        self._places.pop(node, None)
        self._code.pop(node, None)
        self.logs.pop(node).close()
        self.params.pop(node, None)
        del self.specs[node], self.prepared[node]

    def static(self) -> list[ResolvedNode]:
        """Return the nodes that dora starts itself."""
        return [spec for spec in self.specs.values() if not spec.is_dynamic]

    def close(self) -> None:
        for log in self.logs.values():
            log.close()
