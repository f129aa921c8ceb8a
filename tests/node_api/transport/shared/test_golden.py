"""The layout of shared memory and queue records does not change without a new version."""

from __future__ import annotations

import json
from pathlib import Path

from support.golden import check_golden

from dora_node_api.data import arrow
from dora_node_api.data.metadata import encode_metadata
from dora_node_api.protocol.messages import to_json
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.specs import QueueSpec

GOLDEN = Path(__file__).parent / "golden" / f"layout-{layout.VERSION}.txt"


def constants() -> bytes:
    """Every number of the layout."""
    numbers = {
        name: int(value)
        for name, value in vars(layout).items()
        if name.isupper() and isinstance(value, int)
    }
    kinds = {kind.name: int(kind) for kind in layout.RecordKind}
    return json.dumps({**numbers, **kinds}, sort_keys=True).encode()


def payload(data: object) -> bytes:
    """A block without its head, in hexadecimal."""
    encoded = arrow.encode(data, {"k": [1, 2.5], "s": "ä"})
    memory = bytearray(encoded.total)
    encoded.write_into(memory)
    memory[: layout.BLOCK_HEAD_SIZE] = bytes(layout.BLOCK_HEAD_SIZE)
    return f"{encoded.layout} {encoded.data_offset} {memory.hex()}".encode()


def test_the_layout_has_not_changed() -> None:
    import pyarrow as pa

    tags = layout.pack_tags(7, 9, layout.RecordKind.NODE_FAILED, layout.FLAG_FLUSH)
    spec = QueueSpec(1, "a", "out", "b", "in", area=4096, ledger_slots=layout.ledger_slots_for(10))
    lines = [
        constants(),
        layout.RECORD.pack(1, 2 << 32 | 3, 4096, 128, 5, 6, tags, 1 ^ layout.CHECK).hex().encode(),
        layout.BLOCK_HEAD.pack(layout.BLOCK_MAGIC, 1, 2, 3, 4, 5, 6, 7, -1).hex().encode(),
        json.dumps(
            [
                (layout.consumer_size(slots, layout.journal_size(n)), layout.producer_size(slots))
                for n in (1, 10, 16_000)
                for slots in (layout.ledger_slots_for(n),)
            ]
        ).encode(),
        json.dumps([layout.bucket_start(index) for index in range(0, 160, 13)]).encode(),
        json.dumps(to_json(spec)).encode(),
        encode_metadata({"b": True, "n": -1, "t": "x", "l": ["a"]}),
        payload(b"abc"),
        payload(pa.array([1, None, 3], pa.int16())),
        payload(pa.array(["x", None, "yy"])),
    ]
    check_golden(GOLDEN, lines)
