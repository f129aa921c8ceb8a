"""HTTP interface of the coordinator's store of code: paths and headers; no I/O.

Clients upload files by SHA-256, daemons download them. The paths change when the format does.
"""

from __future__ import annotations

from typing import Final

FILES_PATH: Final = "/api/files"
"""POST with a JSON list of SHA-256 returns the missing ones; below it one path per file."""
OFFSET_HEADER: Final = "X-Dora-Offset"
"""Bytes already stored (HEAD), or the position of the uploaded part (PUT)."""
FREE_HEADER: Final = "X-Dora-Free"
"""Bytes that can be written to the store."""
PLACE_HEADER: Final = "X-Dora-Store"
"""Folder of the store on the coordinator's machine, percent-encoded."""


def file_path(digest: str) -> str:
    """Return the path of one file."""
    return f"{FILES_PATH}/{digest}"
