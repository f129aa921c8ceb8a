"""Values that extensions of nodes, such as transports, share on one machine; pure."""

from __future__ import annotations

from collections.abc import Callable

from dora_node_api.errors import ExtensionError

MAX_ENTRIES = 8192
"""Most keys of a node's parameters."""
MAX_VALUE = 32 << 20
"""Most bytes of one value."""
MAX_BYTES = 256 << 20
"""Limits for a dataflow on one machine: keys, bytes of one value, bytes of all."""

Request = Callable[[str, str, str, bytes], bytes | None]
"""Called with action (`store`, `load`, `take` or `drop`), namespace, key and value; returns the
loaded value. Raises ExtensionError."""


class _Entry:
    __slots__ = ("owner", "readers", "value")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.value = b""
        self.readers: set[str] = set()


class ExtensionTable:
    """The values of a dataflow on one machine, each with the node that stored it and its readers.

    A value is dropped by a node, or when the process of its owner ends; owner and readers get a
    note.
    """

    def __init__(self, note: Callable[[str, str, str], object]) -> None:
        """`note(node, namespace, key)` is called for each node that used a dropped value."""
        self._note = note
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._bytes = 0

    def handle(
        self, node: str, action: str, namespace: str, key: str, value: bytes
    ) -> bytes | None:
        """Carry out a `Request` of a node."""
        if action not in ("store", "load", "take", "drop"):
            raise ExtensionError(f"unknown action `{action}` of an extension")
        if action == "store":
            self._store(node, namespace, key, value)
            return None
        entry = self._entries.get((namespace, key))
        if entry is None:
            return None
        if action != "drop":
            entry.readers.add(node)
        if action != "load":
            self._drop(namespace, key)
        return None if action == "drop" else entry.value

    def _store(self, node: str, namespace: str, key: str, value: bytes) -> None:
        entry = self._entries.get((namespace, key))
        if entry is not None and entry.owner != node:
            raise ExtensionError(
                f"extension key `{namespace}/{key}` was stored by node `{entry.owner}`, so node"
                f" `{node}` cannot replace it; drop it first or use another key"
            )
        total = self._bytes + len(value) - (0 if entry is None else len(entry.value))
        if total > MAX_BYTES or (entry is None and len(self._entries) >= MAX_ENTRIES):
            raise ExtensionError(
                f"cannot store extension key `{namespace}/{key}`: the dataflow has"
                f" {len(self._entries)} keys with {self._bytes} bytes on this machine, and at most"
                f" {MAX_ENTRIES} keys with {MAX_BYTES} bytes fit; drop those that are not needed"
            )
        if entry is None:
            entry = self._entries[namespace, key] = _Entry(node)
        entry.value = value
        self._bytes = total

    def _drop(self, namespace: str, key: str, ended: str | None = None) -> None:
        entry = self._entries.pop((namespace, key))
        self._bytes -= len(entry.value)
        for node in sorted({entry.owner, *entry.readers} - {ended}):
            self._note(node, namespace, key)

    def forget(self, node: str) -> None:
        """Drop what a node has stored, whose process has ended; it gets no notes."""
        for (namespace, key), entry in list(self._entries.items()):
            entry.readers.discard(node)
            if entry.owner == node:
                self._drop(namespace, key, ended=node)


class Extensions:
    """A node's access to the values, and the notes about those that were dropped."""

    def __init__(self, request: Request, look: Callable[[], None] = lambda: None) -> None:
        """`look` takes in the notes that have arrived."""
        self._request = request
        self._look = look
        self._dropped: dict[str, dict[str, None]] = {}

    def store(self, namespace: str, key: str, value: bytes | bytearray | memoryview) -> None:
        """Store a value. Raises ExtensionError, TypeError."""
        content = bytes(memoryview(value))
        if len(content) > MAX_VALUE:
            raise ExtensionError(
                f"the value of extension key `{namespace}/{key}` has {len(content)} bytes; at most"
                f" {MAX_VALUE} fit"
            )
        self._request("store", *_texts(namespace, key), content)

    def load(self, namespace: str, key: str, *, remove: bool) -> bytes | None:
        """Return a value, None if it does not exist. Raises ExtensionError, TypeError."""
        return self._request("take" if remove else "load", *_texts(namespace, key), b"")

    def drop(self, namespace: str, key: str) -> None:
        """Drop a value if it exists. Raises ExtensionError, TypeError."""
        self._request("drop", *_texts(namespace, key), b"")

    def note(self, namespace: str, key: str) -> None:
        """Note that a value was dropped."""
        self._dropped.setdefault(namespace, {})[key] = None

    def drain(self, namespace: str) -> list[str]:
        """Return the keys that were dropped since the last call."""
        self._look()
        return list(self._dropped.pop(namespace, ()))


def local_extensions(node: str) -> Extensions:
    """Return the access of a node that is alone, as in a test."""
    table = ExtensionTable(lambda _node, namespace, key: extensions.note(namespace, key))
    extensions = Extensions(lambda *request: table.handle(node, *request))
    return extensions


def _texts(namespace: str, key: str) -> tuple[str, str]:
    for text in (namespace, key):
        if not isinstance(text, str):
            raise TypeError(f"namespace and key must be str, not {type(text).__name__}")
    return namespace, key
