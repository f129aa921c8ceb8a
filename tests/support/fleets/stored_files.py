"""Files in the store of a coordinator or daemon."""

from __future__ import annotations

import hashlib

from dora_config.file_store import FileStore


def add(store: FileStore, content: bytes) -> str:
    """Store a file and return its SHA-256."""
    digest = hashlib.sha256(content).hexdigest()
    with store.open_partial(digest, 0) as file:
        file.write(content)
        store.publish(digest, file)
    return digest
