"""An edge of a dataflow, and the cycles in which backpressure can deadlock; pure."""

from __future__ import annotations

from collections.abc import Iterable

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.ids import RESERVED_NODE_ID
from dora_node_api.frozen import FrozenRecord


class Edge(FrozenRecord):
    """Edge from an output of ``source`` to an input of ``target``."""

    source: str
    output: str
    target: str
    input: str

    @property
    def is_virtual(self) -> bool:
        """Whether the source is a timer or ``dora/logs``."""
        return self.source == RESERVED_NODE_ID

    def __str__(self) -> str:
        return f"{self.source}/{self.output} -> {self.target}/{self.input}"


def backpressure_cycles(nodes: Iterable[ResolvedNode]) -> tuple[tuple[str, ...], ...]:
    """Return groups of node ids that can wait for each other's full queues forever."""
    waiting = [n for n in nodes if any(i.waiting_node is not None for i in n.inputs.values())]
    if not waiting:
        return ()
    from dora_config.dataflow.graph import backpressure_readers, cycles

    return tuple(tuple(cycle) for cycle in cycles(backpressure_readers(waiting)))
