"""The store of uploaded code, as ``dora_config.file_store`` reads it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path
from typing import IO, Any

from dora_cli.remote_program.paths import state_dir
from dora_cli.remote_program.protocol import Commands, Problem
from dora_cli.remote_program.transfers import begin_transfer


def _store() -> Path:
    return state_dir() / "code"


def missing(digests: list[str]) -> dict[str, Any]:
    """Return the files that are missing; mark the others as used.

    If any are, also returns the free space, where to append their archive, and how much of it an
    earlier transfer has sent.
    """
    absent = []
    for digest in digests:
        try:
            os.utime(_store() / digest[:2] / digest)
        except FileNotFoundError:
            absent.append(digest)
    if not absent:
        return {"missing": []}
    partial = _store() / "partial"
    name = f"parcel-{hashlib.sha256(''.join(absent).encode()).hexdigest()}"
    path, size = begin_transfer(partial, name)
    return {
        "missing": absent,
        "store": str(_store()),
        "free": shutil.disk_usage(partial).free,
        "path": str(path),
        "size": size,
    }


def discard(path: str) -> dict[str, Any]:
    """Remove a partial upload."""
    Path(path).unlink(missing_ok=True)
    return {}


def take(path: str) -> dict[str, Any]:
    """Move the files of an archive into the store."""
    parcel = Path(path)
    taken = 0
    try:
        with tarfile.open(parcel) as archive:
            for entry in archive:
                source = archive.extractfile(entry)
                if source is None or len(entry.name) != 64 or not entry.name.isalnum():
                    raise Problem(f"unexpected file {entry.name!r} in the archive")
                content = parcel.with_name(f"{entry.name}.{parcel.name}")
                try:
                    _copy(source, content, entry.name)
                    final = _store() / entry.name[:2] / entry.name
                    final.parent.mkdir(exist_ok=True)
                    content.replace(final)
                finally:
                    content.unlink(missing_ok=True)
                taken += 1
    except tarfile.TarError as error:
        raise Problem(f"received archive is corrupt ({error}); try again") from None
    finally:
        parcel.unlink(missing_ok=True)
    return {"taken": taken}


def _copy(source: IO[bytes], content: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with content.open("wb") as target:
        while piece := source.read(1 << 20):
            digest.update(piece)
            target.write(piece)
    if digest.hexdigest() != expected:
        raise Problem("received data is corrupt; try again")


COMMANDS: Commands = {"missing": missing, "take": take, "discard": discard}
