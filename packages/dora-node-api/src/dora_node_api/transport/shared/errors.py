"""Errors of the transport.

- `TransportError` (a `DoraNodeError`)
  - `PoolExhausted`: no memory for a payload (also a `MemoryError`)
  - `BrokenRecord`: a malformed record or block; it was dropped and counted
  - `BoardFull`: no room for another edge on the status board
  - `SampleError`: a sample that was sent or dropped already, or has open views (a `RuntimeError`)
"""

from __future__ import annotations

from dora_node_api.errors import DoraNodeError


class TransportError(DoraNodeError):
    """Root of the errors of the transport."""


class PoolExhausted(TransportError, MemoryError):
    """No shared memory for a payload, although all messages that may be dropped were.

    `needed` and `cap` are bytes; `holders` maps edges to the bytes that they keep.
    """

    def __init__(self, needed: int, cap: int, holders: dict[str, int], reason: str = "") -> None:
        self.needed = needed
        self.cap = cap
        self.holders = holders
        self.reason = reason
        super().__init__(needed, cap, holders, reason)

    def __str__(self) -> str:
        held = ", ".join(f"{edge} holds {size:,} bytes" for edge, size in self.holders.items())
        why = self.reason or f"the pool of this node may grow to {self.cap:,} bytes"
        return (
            f"no shared memory for a message of {self.needed:,} bytes: {why}"
            + (f"; {held}" if held else "")
            + ". Send less at once, let the receivers drop their arrays sooner, or raise "
            "`shared_memory_pool_size` of the node (DORA_NODE_SHM_POOL_SIZE)"
        )


class BrokenRecord(TransportError):
    """A record or block is malformed. It was dropped and counted."""

    def __init__(self, edge: str, problem: str) -> None:
        self.edge = edge
        self.problem = problem
        super().__init__(edge, problem)

    def __str__(self) -> str:
        return f"dropped a broken record on {self.edge}: {self.problem}"


class BoardFull(TransportError):
    """The status board has no room for another edge."""


class SampleError(TransportError, RuntimeError):
    """A sample was used after it was sent or dropped, or sent while views of it were open."""
