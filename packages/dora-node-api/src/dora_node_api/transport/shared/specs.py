"""What both ends of a queue and the runner between them must know about it."""

from __future__ import annotations

from typing import Any

from dora_node_api.frozen import Frozen

DROP_OLDEST = "drop_oldest"
BACKPRESSURE = "backpressure"


class QueueSpec(Frozen):
    """One input's queue: who sends, who receives, and where its counters lie."""

    queue: int
    """Number given by the runner, unique in the dataflow and never used twice."""
    producer: str
    output: str
    consumer: str
    input: str
    policy: str = DROP_OLDEST
    """`drop_oldest` or `backpressure`."""
    bound: int = 10
    """Messages that wait at most; 1 to 16,000."""
    area: int = 0
    """Offset in the status board, from `Board.allocate_edge`."""
    ledger_slots: int = 0
    """Length of the release ledger, from `Board.allocate_edge`."""
    hold_limit: int = 64 * 1024 * 1024
    """Bytes that the consumer may keep alive; past it, it is given private copies."""
    journal: int = 0
    """Offset in the status board of what a link has taken (see `holding`); 0: there is none."""

    @property
    def edge(self) -> str:
        """The edge as users know it: `camera/image -> plot/picture`."""
        return f"{self.producer}/{self.output} -> {self.consumer}/{self.input}"

    @property
    def backpressure(self) -> bool:
        return self.policy == BACKPRESSURE

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values that `from_json` understands."""
        return {name: getattr(self, name) for name in self.__match_args__}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> QueueSpec:
        """The inverse of `to_json`; ignores unknown keys. Raises TypeError for a missing one."""
        return cls(**{name: values[name] for name in cls.__match_args__ if name in values})
