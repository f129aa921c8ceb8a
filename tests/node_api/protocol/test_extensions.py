"""Values of extensions: owners, readers, limits, notes about dropped ones."""

from __future__ import annotations

from typing import Any

import pytest

from dora_node_api.errors import ExtensionError
from dora_node_api.protocol import extensions
from dora_node_api.protocol.extensions import ExtensionTable, local_extensions


class Bench:
    """A table, and the notes that it sends."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []
        self.table = ExtensionTable(lambda node, _, key: self.notes.append((node, key)))

    def use(self, node: str, action: str, key: str = "k", value: bytes = b"") -> bytes | None:
        return self.table.handle(node, action, "ns", key, value)


def test_a_value_belongs_to_the_node_that_stored_it() -> None:
    bench = Bench()
    bench.use("a", "store", value=b"1")
    bench.use("a", "store", value=b"2")
    assert bench.use("b", "load") == b"2"
    with pytest.raises(ExtensionError, match="`ns/k` was stored by node `a`, so node `b`"):
        bench.use("b", "store", value=b"3")
    assert bench.table.handle("b", "load", "other", "k", b"") is None
    assert bench.notes == []


def test_owner_and_readers_get_a_note() -> None:
    bench = Bench()
    for key in ("k", "taken", "dropped"):
        bench.use("a", "store", key, b"x")
    bench.use("b", "load")
    assert bench.use("c", "take", "taken") == b"x"
    assert bench.use("c", "take", "taken") is None
    bench.use("c", "drop", "dropped")
    bench.use("c", "drop", "dropped")
    assert bench.notes == [("a", "taken"), ("c", "taken"), ("a", "dropped")]
    bench.notes.clear()
    bench.table.forget("a")
    assert bench.notes == [("b", "k")]
    assert bench.use("b", "load") is None


def test_a_process_that_has_ended_gets_no_notes_for_what_it_read() -> None:
    bench = Bench()
    bench.use("a", "store")
    bench.use("b", "load")
    bench.table.forget("b")
    bench.use("a", "drop")
    assert bench.notes == [("a", "k")]


def test_keys_and_bytes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "MAX_ENTRIES", 2)
    monkeypatch.setattr(extensions, "MAX_BYTES", 10)
    monkeypatch.setattr(extensions, "MAX_VALUE", 8)
    bench = Bench()
    bench.use("a", "store", "1", bytes(8))
    with pytest.raises(ExtensionError, match="has 1 keys with 8 bytes"):
        bench.use("a", "store", "2", bytes(3))
    bench.use("a", "store", "1", bytes(7))
    bench.use("a", "store", "2", bytes(3))
    with pytest.raises(ExtensionError, match="at most 2 keys"):
        bench.use("a", "store", "3", b"")
    bench.use("a", "drop", "1")
    bench.use("a", "store", "3", bytes(7))
    with pytest.raises(ExtensionError, match="has 9 bytes; at most 8 fit"):
        local_extensions("a").store("ns", "k", bytes(9))


@pytest.mark.parametrize(
    "arguments", [("ns", 1, b""), (None, "k", b""), ("ns", "k", "text"), ("ns", "k", [1])]
)
def test_other_types_are_refused(arguments: Any) -> None:
    with pytest.raises(TypeError):
        local_extensions("a").store(*arguments)
