"""Stores uploaded code on a machine; runs there as ``python3 -I - COMMAND JSON`` over SSH.

Standard library only. The store is that of ``dora_config.file_store``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def main() -> int:
    command, text = sys.argv[1:3]
    os.umask(0o077)
    try:
        answer = COMMANDS[command](**json.loads(text))
    except OSError as error:
        answer = {"problem": f"{error.filename or store()}: {error.strerror or error}"}
    except (ValueError, tarfile.TarError) as error:
        answer = {"problem": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "problem" in answer else 0


def store() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return base / "dora" / "code"


def place(name: str) -> dict[str, Any]:
    """Return the path for an upload and how many bytes are already there."""
    folder = store() / "partial"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"parcel-{name}"
    path.touch()
    return {"path": str(path), "size": path.stat().st_size}


def missing(path: str) -> dict[str, Any]:
    """Return the listed files that are missing, and the free space; mark the others as used."""
    listed = Path(path)
    wanted = json.loads(listed.read_text())
    listed.unlink()
    absent = []
    for digest in wanted:
        try:
            os.utime(store() / digest[:2] / digest)
        except FileNotFoundError:
            absent.append(digest)
    return {
        "missing": absent,
        "store": str(store()),
        "free": shutil.disk_usage(listed.parent).free,
    }


def discard(path: str) -> dict[str, Any]:
    """Remove a partial upload."""
    Path(path).unlink(missing_ok=True)
    return {}


def take(path: str) -> dict[str, Any]:
    """Move the files of an archive into the store; raises ValueError for a wrong digest."""
    parcel = Path(path)
    taken = 0
    try:
        with tarfile.open(parcel) as archive:
            for entry in archive:
                source = archive.extractfile(entry)
                if source is None or len(entry.name) != 64 or not entry.name.isalnum():
                    raise ValueError(f"unexpected file {entry.name!r} in the archive")
                content = parcel.with_name(f"{entry.name}.of-parcel")
                try:
                    _copy(source, content, entry.name)
                    final = store() / entry.name[:2] / entry.name
                    final.parent.mkdir(exist_ok=True)
                    content.replace(final)
                finally:
                    content.unlink(missing_ok=True)
                taken += 1
    finally:
        parcel.unlink()
    return {"taken": taken}


def _copy(source: IO[bytes], content: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with content.open("wb") as target:
        while piece := source.read(1 << 20):
            digest.update(piece)
            target.write(piece)
    if digest.hexdigest() != expected:
        raise ValueError("received data is corrupt; try again")


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "place": place,
    "missing": missing,
    "take": take,
    "discard": discard,
}

if __name__ == "__main__":
    sys.exit(main())
