"""What the transport raises.

- `TransportError` (a `DoraNodeError`)
  - `PoolExhausted`: no memory for a payload (also a `MemoryError`)
  - `BrokenRecord`: a record or block that is not what its sender wrote; it was dropped and counted
  - `QueueGone`: the queue was removed while something waited for it
  - `BoardFull`: no room for another edge or node on the status board
  - `SampleError`: a sample that was sent or dropped already, or has views open (a `RuntimeError`)

`NodeForked`, raised by any use in a forked child, lies in `dora_node_api.errors`.
"""

from __future__ import annotations

from dora_node_api.errors import DoraNodeError, NodeForked

__all__ = [
    "BoardFull",
    "BrokenRecord",
    "NodeForked",
    "PoolExhausted",
    "QueueGone",
    "SampleError",
    "TransportError",
]


class TransportError(DoraNodeError):
    """Root of what the transport raises."""


class PoolExhausted(TransportError, MemoryError):
    """No shared memory for a payload, although everything that can be given up was.

    `needed` and `cap` are bytes; `holders` names who keeps how many bytes.
    """

    def __init__(self, needed: int, cap: int, holders: dict[str, int], reason: str = "") -> None:
        self.needed = needed
        self.cap = cap
        self.holders = holders
        self.reason = reason
        super().__init__(needed, cap, holders, reason)

    def __str__(self) -> str:
        held = ", ".join(f"{who} holds {size:,} bytes" for who, size in self.holders.items())
        why = self.reason or f"the pool of this node may grow to {self.cap:,} bytes"
        return (
            f"no shared memory for a message of {self.needed:,} bytes: {why}"
            + (f"; {held}" if held else "")
            + ". Send less at once, let the receivers give their arrays back, or raise "
            "`shared_memory_pool_size` of the node (DORA_NODE_SHM_POOL_SIZE)"
        )


class BrokenRecord(TransportError):
    """A record or block is not what its sender wrote. It was dropped and counted."""

    def __init__(self, edge: str, problem: str) -> None:
        self.edge = edge
        self.problem = problem
        super().__init__(edge, problem)

    def __str__(self) -> str:
        return f"a broken record on {self.edge} was dropped: {self.problem}"


class QueueGone(TransportError):
    """The queue was removed while something waited for it."""


class BoardFull(TransportError):
    """The status board has no room for another edge or node."""


class SampleError(TransportError, RuntimeError):
    """A sample was used after it was sent or dropped, or sent while views of it were open."""
