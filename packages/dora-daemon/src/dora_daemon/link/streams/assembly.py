"""A message that arrives in several frames."""

from __future__ import annotations

from collections import deque

from dora_daemon.link.protocol.frames import Data
from dora_daemon.link.streams.validation import problem_with
from dora_node_api.transport.producer.blocks import Hold


class Assembly:
    """Copies the pieces of one message into its block as they arrive."""

    __slots__ = (
        "arrived", "at_once", "copied", "data", "flags", "hold", "sent_ns", "size", "target",
        "waiting",
    )  # fmt: skip

    def __init__(self, data: Data) -> None:
        self.data = data
        """The first frame."""
        self.flags = data.flags
        self.sent_ns = data.sent_ns
        self.size = data.parts.nbytes
        self.arrived = len(data.data)
        self.copied = 0
        self.hold: Hold | None = None
        self.target: memoryview | None = None
        """Data area of the block, until the message is validated: a view keeps the block."""
        self.at_once = False
        """Whether the receiving thread copies the pieces; otherwise the stream's thread does."""
        self.waiting: deque[tuple[int, memoryview]] = deque(((0, data.data),))

    def collect(self) -> None:
        """Copy the pieces of a compressed message into memory of this process."""
        self.at_once = True
        self.waiting.clear()
        self.target = memoryview(bytearray(self.size))
        self.copy(0, self.data.data)

    def fill(self, hold: Hold, target: memoryview) -> None:
        """Use this block."""
        self.hold = hold
        self.target = target

    def copy(self, offset: int, piece: memoryview) -> None:
        """Copy a piece into the block."""
        assert self.target is not None
        self.target[offset : offset + len(piece)] = piece
        self.copied += len(piece)

    def validate(self) -> str | None:
        """Return why the message must be dropped; None if it is valid. Checks it once."""
        if self.target is None:
            return None
        problem = problem_with(self.data.parts, self.target)
        self.target = None
        return problem

    @property
    def kept(self) -> int:
        """Bytes that the sender keeps for the message; more than arrive if it is compressed.

        `data.parts` are those of the restored message once it is restored.
        """
        return max(self.size, self.data.parts.nbytes)

    @property
    def complete(self) -> bool:
        """Whether all pieces have arrived."""
        return self.arrived == self.size
