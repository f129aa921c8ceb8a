"""Golden files: the exact bytes of a wire format, one file for each of its versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def check_golden(path: Path, lines: Sequence[bytes]) -> None:
    """Compare one message per line with the golden file of the present version.

    A new version writes its file at the first run, which fails so that the file is reviewed and
    committed. Files of released versions never change.
    """
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        raise AssertionError(f"wrote the golden file {path.name} of a new version: commit it")
    stored = path.read_bytes().splitlines()
    for number, (expected, found) in enumerate(zip(stored, lines, strict=False), start=1):
        assert found == expected, (
            f"{path.name}:{number}: the format changed; see CONTRIBUTING, Versions of formats"
        )
    assert len(lines) == len(stored), f"{path.name}: messages were added or removed"
