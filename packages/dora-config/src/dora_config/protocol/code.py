"""File list of a node whose code is sent to its machine, and the coordinator's store of files.

A :class:`CodeSet` is itself stored and sent as a file, named by the SHA-256 of its text.
Specifications refer to it by that digest. Clients upload files by SHA-256, daemons download them;
the paths of the store change when its format does. No I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, field_validator, model_validator

from dora_config.protocol.envelope import Message

MAX_FILES = 50_000
"""Most files, and most links, of a node's code."""
MAX_FOLLOWED = 40
"""Links that the kernel follows in one path."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in hexadecimal digits; used as a file name, hence the strict pattern."""


FILES_PATH: Final = "/api/files"
"""POST with a JSON list of SHA-256 returns the missing ones; below it one path per file."""
CODE_QUERY: Final = "code"
"""Parameter of a GET: the list whose other files will be requested, too."""
OFFSET_HEADER: Final = "X-Dora-Offset"
"""Bytes already stored (HEAD), or the position of the uploaded part (PUT)."""
FREE_HEADER: Final = "X-Dora-Free"
"""Bytes that can be written to the store."""
PLACE_HEADER: Final = "X-Dora-Store"
"""Folder of the store on the coordinator's machine, percent-encoded."""


def file_path(digest: str, code: str = "") -> str:
    """Return the path of one file; ``code``: digest of a `CodeSet` that names it."""
    return f"{FILES_PATH}/{digest}" + (f"?{CODE_QUERY}={code}" if code else "")


def check_path(path: str) -> str:
    """Return a path below the node's folder; `ValueError` if it could lead out of it."""
    parts = path.split("/")
    if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{path!r} is not a path below the folder")
    return path


def _follow(path: str, targets: Mapping[str, str]) -> None:
    """Follow a link as the kernel does, through other links; `ValueError` if it leads out."""
    problem = ValueError(f"{path!r} links to {targets[path]!r}, outside of the folder")
    place: list[str] = []
    ahead = path.split("/")[::-1]
    followed = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            if not place:
                raise problem
            place.pop()
        elif part not in ("", "."):
            place.append(part)
        target = targets.get("/".join(place))
        if target is None:
            continue
        if target.startswith("/"):
            raise problem
        followed += 1
        if followed > MAX_FOLLOWED:
            raise ValueError(f"{path!r} links to itself through other links")
        place.pop()
        ahead += target.split("/")[::-1]


class CodeFile(Message):
    """One file; ``path`` is relative to the node's working directory."""

    path: str
    sha256: Digest
    size: int = Field(ge=0)
    executable: bool = False

    _path = field_validator("path")(check_path)


class CodeLink(Message):
    """A symbolic link; ``target`` is relative to the link's own folder.

    `CodeSet` checks that it stays inside the folder of the node.
    """

    path: str
    target: str

    _path = field_validator("path")(check_path)


class CodeSet(Message):
    """All files of a node, in the order of their paths."""

    files: tuple[CodeFile, ...] = Field(default=(), max_length=MAX_FILES)
    links: tuple[CodeLink, ...] = Field(default=(), max_length=MAX_FILES)

    @model_validator(mode="after")
    def _one_of_each(self) -> CodeSet:
        paths = self.paths
        if len(set(paths)) != len(paths):
            raise ValueError("a path is listed twice")
        entries = set(paths)
        for path in paths:
            parents = path.split("/")[:-1]
            for length in range(1, len(parents) + 1):
                if "/".join(parents[:length]) in entries:
                    raise ValueError(f"{path!r}: its folder is a file or link")
        targets = {link.path: link.target for link in self.links}
        for path in targets:
            _follow(path, targets)
        return self

    @property
    def paths(self) -> list[str]:
        return [file.path for file in self.files] + [link.path for link in self.links]

    def text(self) -> bytes:
        """Return the encoded form, which `digest` hashes."""
        return self.model_dump_json().encode()

    def digest(self) -> str:
        return hashlib.sha256(self.text()).hexdigest()

    @property
    def size(self) -> int:
        """Total size of the files in bytes."""
        return sum(file.size for file in self.files)
