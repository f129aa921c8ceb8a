"""One received message over a segment, and the release of its memory.

A `Delivery` releases its block by storing one byte in the ledger, in the thread that drops the last
view. It takes no lock, and it does nothing in a forked child.
"""

from __future__ import annotations

import mmap
import weakref
from functools import cached_property
from typing import Any

from dora_node_api.data.metadata import decode_metadata, utc_datetime
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.errors import BrokenRecord
from dora_node_api.transport.shared.fork_guard import ForkAware, forked_error
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.payload import Payload, image_of
from dora_node_api.transport.shared.specs import QueueSpec

_HEAD_SIZE = layout.BLOCK_HEAD_SIZE
DECODE_ERRORS = (ValueError, TypeError, LookupError, OSError, NotImplementedError)

# The module `data.arrow`, imported at the first message. An import statement in a function costs
# 0.3 us even if the module is imported already.
_arrow: Any = None


def _load_arrow() -> Any:
    global _arrow
    from dora_node_api.data import arrow

    _arrow = arrow
    return arrow


class MappedSegment:
    """A producer's segment, mapped read-only."""

    __slots__ = ("__dict__", "memory", "size", "view")

    def __init__(self, memory: mmap.mmap, size: int) -> None:
        self.memory = memory
        self.size = size
        self.view = memoryview(memory)

    @cached_property
    def address(self) -> int:
        import pyarrow as pa

        return int(pa.py_buffer(self.memory).address)


class Account(ForkAware):
    """The blocks that the consumer of one input holds."""

    __slots__ = ("check_at", "held", "held_bytes", "leases", "ledger")

    def __init__(self, ledger: memoryview) -> None:
        super().__init__()
        self.ledger = ledger
        self.held = 0
        self.held_bytes = 0
        # The last delivery of each slot, to find those whose finalizer was cut short. A slot that
        # is released without its delivery must be removed first.
        self.leases: dict[int, tuple[weakref.ref[Delivery], int, int]] = {}
        self.check_at = _FIRST_CHECK

    def release_lost(self) -> None:
        """Release blocks whose finalizer a signal handler's exception ended."""
        for slot, (delivery, generation, nbytes) in list(self.leases.items()):
            if delivery() is None:
                if self.ledger[slot] != generation:
                    self.ledger[slot] = generation
                    self.held -= 1
                    self.held_bytes -= nbytes
                del self.leases[slot]
        self.check_at = max(_FIRST_CHECK, 2 * self.held)


_FIRST_CHECK = 16
"""Smallest number of held messages at which `release_lost` is called."""


class Delivery:
    """One received record. Its array and every view of it keep the shared memory alive.

    It keeps the block from being reused by its producer until it is dropped, and releases nothing
    before `account` is set.
    """

    __slots__ = (
        *("__weakref__", "_base", "_head", "_offset", "_validate", "account", "error", "flags"),
        *("generation", "kind", "nbytes", "sent_ns", "sequence", "slot", "spec"),
    )

    account: Account

    def __init__(
        self,
        spec: QueueSpec,
        kind: RecordKind,
        sequence: int,
        sent_ns: int,
        nbytes: int,
        flags: int,
        head: tuple[int, ...] | None = None,
        base: MappedSegment | bytes | None = None,
        offset: int = 0,
        validate: bool = False,
        slot: int = layout.NO_SLOT,
        generation: int = 0,
        error: str = "",
    ) -> None:
        self.spec = spec
        self.kind = kind
        self.sequence = sequence
        self.sent_ns = sent_ns
        """CLOCK_MONOTONIC of the send."""
        self.nbytes = nbytes
        """Size of the block in use."""
        self.flags = flags
        """FLAG_PROTECTED and FLAG_FLUSH."""
        self.error = error
        """Error of NODE_FAILED that the runner reports."""
        self.slot = slot
        self.generation = generation
        self._head = head
        self._base = base
        self._offset = offset
        self._validate = validate

    def __del__(self) -> None:
        try:
            account = self.account
        except AttributeError:
            return
        if not account.forked:
            account.ledger[self.slot] = self.generation
            account.held -= 1
            account.held_bytes -= self.nbytes

    @property
    def timestamp_ns(self) -> int:
        """CLOCK_REALTIME of the send, nanoseconds; 0 for lifecycle records."""
        return 0 if self._head is None else self._head[5]

    @property
    def value(self) -> Any:
        """A pyarrow array over shared memory; made at each use.

        None for lifecycle records. Raises BrokenRecord when it cannot be decoded, and NodeForked.
        """
        head, base, offset = self._head, self._base, self._offset
        if head is None or base is None:
            return None
        start = offset + _HEAD_SIZE
        arrow = _arrow or _load_arrow()
        try:
            if type(base) is MappedSegment:
                if self.account.forked:
                    raise forked_error()
                return arrow.decode_in_place(
                    base.memory[start : start + head[1]], head[3], head[7], head[8],
                    base.address + offset + head[6], self.nbytes - head[6], self, self._validate,
                )  # fmt: skip
            assert isinstance(base, bytes)
            return arrow.decode(
                base[start : start + head[1]], head[3], head[7], head[8],
                arrow.buffer_of(base, head[6], self.nbytes - head[6]), validate=self._validate,
            )  # fmt: skip
        except DECODE_ERRORS as error:
            raise BrokenRecord(self.spec.edge, f"message {self.sequence}: {error}") from error

    @property
    def metadata(self) -> dict[str, Any]:
        """The sender's metadata with `timestamp` (aware UTC datetime) unless the sender set one.

        Raises BrokenRecord when it cannot be decoded.
        """
        head = self._head
        if head is None:
            return {}
        metadata: dict[str, Any] = {"timestamp": utc_datetime(head[5])}
        if size := head[2]:
            start = self._offset + _HEAD_SIZE + head[1]
            base = self._base
            whole: Any = base.memory if isinstance(base, MappedSegment) else base
            try:
                metadata.update(decode_metadata(whole[start : start + size]))
            except ValueError as error:
                raise BrokenRecord(
                    self.spec.edge, f"metadata of message {self.sequence}: {error}"
                ) from error
        return metadata

    @property
    def data(self) -> memoryview:
        """The payload's bytes in memory, read-only; empty for lifecycle records.

        Valid only while the delivery or its value is alive.
        """
        head = self._head
        if head is None:
            return memoryview(b"")
        return self.memory[self._offset + head[6] : self._offset + self.nbytes]

    @property
    def memory(self) -> memoryview:
        """The segment, or the private copy, that the block lies in."""
        base = self._base
        return base.view if isinstance(base, MappedSegment) else memoryview(base or b"")

    def image_parts(self) -> tuple[memoryview, memoryview]:
        """Return the two parts of the block's image, valid while the delivery is alive."""
        return image_of(self.memory, self._offset, self.nbytes)

    def take_apart(self) -> tuple[Payload, memoryview]:
        """Return a message and its data area, valid while the delivery is alive."""
        head, whole = self._head, self.memory
        assert head is not None
        _, descriptor_size, metadata_size, array_layout, _, stamp, data_offset, length, nulls = head
        start = self._offset + _HEAD_SIZE
        middle = start + descriptor_size
        payload = Payload(
            bytes(whole[start:middle]),
            bytes(whole[middle : middle + metadata_size]),
            array_layout,
            length,
            nulls,
            self.nbytes - data_offset,
            timestamp_ns=stamp,
        )
        return payload, self.data

    @property
    def copied(self) -> bool:
        """Whether this is a private copy, made because the consumer holds too much."""
        return isinstance(self._base, bytes)

    def __repr__(self) -> str:
        return f"<Delivery {self.kind.name} {self.sequence} of {self.spec.edge}>"
