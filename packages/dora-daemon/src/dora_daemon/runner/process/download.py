"""Downloads the program of a node whose ``path`` is a URL."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from glob import escape
from pathlib import Path

from dora_config.yaml.text_files import is_file
from dora_daemon.runner.process.sources import SourceNotFound

_DOWNLOAD_SECONDS = 60.0
"""Seconds without data from the server after which the download fails."""
_CHUNK = 1 << 20
"""Bytes that are copied at once."""


def download(url: str, sha256: str | None, working_dir: Path) -> Path:
    """Download a program into ``<working dir>/build/`` and make it executable.

    A file that is there already with the wanted checksum is used again. Raises SourceNotFound.
    """
    try:
        name = Path(urllib.parse.urlparse(url).path).name or "node"
    except ValueError as error:
        raise SourceNotFound(f"cannot download {url}: not a valid URL ({error})") from error
    target = working_dir / "build" / name
    if sha256 is not None and is_file(target) and _sha256(target) == sha256.lower():
        return target
    part = target.with_name(f".{name}.{os.getpid()}.part")  # another dataflow may download too
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_parts(target)
        request = urllib.request.Request(url, headers={"User-Agent": "dora"})
        with (
            urllib.request.urlopen(request, timeout=_DOWNLOAD_SECONDS) as answer,
            part.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file, _CHUNK)
        if missing := getattr(answer, "length", None):  # None if it is not known
            raise ConnectionError(f"connection closed {missing} bytes before the end")
        found = _sha256(part)
        if sha256 is not None and found != sha256.lower():
            part.unlink()
            raise SourceNotFound(
                f"{url} has the SHA-256 {found}, but path_sha256 is {sha256}; it was not run"
            )
        part.chmod(0o755)
        part.replace(target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        with suppress(OSError):  # such as an invalid file name
            part.unlink(missing_ok=True)
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise SourceNotFound(f"cannot download {url} to {target}: {error}") from error
    return target


def _remove_stale_parts(target: Path) -> None:
    """Remove incomplete downloads of killed processes."""
    for part in target.parent.glob(f".{escape(target.name)}.*.part"):
        if not Path("/proc", part.name.split(".")[-2]).exists():
            part.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
