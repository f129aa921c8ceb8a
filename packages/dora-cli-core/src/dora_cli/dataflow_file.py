"""Loads the dataflow file that a command names, from a path or a URL."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from dora_cli import output
from dora_config.atomic_write import write_file
from dora_config.errors import DoraError, Problem

if TYPE_CHECKING:
    from dora_config.dataflow.loader import LoadedDataflow

DOWNLOAD_TIMEOUT = 30.0
"""Seconds without a byte after which a download fails."""
MAX_DOWNLOAD = 16 * 1024 * 1024
"""Most bytes of a downloaded dataflow file."""


class DataflowFileError(DoraError):
    """The dataflow file does not exist or cannot be downloaded."""


def load(path: Path, *, strict_types: bool | None = None) -> LoadedDataflow:
    """Load and check a dataflow file, printing its warnings.

    Raises DataflowFileError; ConfigError with all problems.
    """
    from dora_config.dataflow.loader import load_dataflow

    require(path)
    loaded = load_dataflow(path, strict_types=strict_types)
    print_warnings(loaded.warnings)
    return loaded


def print_warnings(problems: Iterable[Problem]) -> None:
    for problem in problems:
        output.warn(str(problem).replace("warning: ", "", 1))


def require(path: Path) -> None:
    """Raise DataflowFileError unless `path` is a file."""
    if not path.is_file():
        what = "does not exist"
        if path.exists():
            what = "is a directory" if path.is_dir() else "is not a regular file"
        raise DataflowFileError(f"{path} {what}; expected a dataflow file")


def local_path(path_or_url: str) -> Path:
    """Return the path; download a URL into the working directory first.

    Raises DataflowFileError if a different file of the same name exists there.
    """
    if not path_or_url.lower().startswith(("http:", "https:")):
        return Path(path_or_url)
    try:
        parts = urlsplit(path_or_url)
    except ValueError as error:
        raise DataflowFileError(f"{path_or_url} is not a valid URL: {error}") from error
    name = unquote(parts.path).rpartition("/")[2]
    if not name or name.startswith(".") or "\0" in name:
        raise DataflowFileError(f"{path_or_url} has no file name")
    content = _download(path_or_url)
    target = Path(name)
    if target.exists() and target.read_bytes() != content:
        raise DataflowFileError(
            f"{path_or_url} would replace {target}, which differs; rename that file"
        )
    write_file(target, content)
    return target


def _download(url: str) -> bytes:
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response:
            content: bytes = response.read(MAX_DOWNLOAD + 1)
    except HTTPError as error:
        error.close()
        raise DataflowFileError(f"cannot download {url}: {error}") from error
    except (OSError, ValueError, HTTPException) as error:
        raise DataflowFileError(f"cannot download {url}: {error}") from error
    if len(content) > MAX_DOWNLOAD:
        raise DataflowFileError(
            f"{url} is larger than {MAX_DOWNLOAD >> 20} MiB, the limit for a dataflow file"
        )
    return content
