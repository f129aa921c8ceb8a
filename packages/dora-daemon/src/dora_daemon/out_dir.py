"""The directory `out` beside a dataflow file: logs of its runs, its session."""

from __future__ import annotations

from pathlib import Path

OUT_DIR = "out"
IGNORE_EVERYTHING = "*\n"


def prepare_out_dir(directory: Path) -> None:
    """Make an `out` directory that version control ignores; one that has a .gitignore is left."""
    directory.mkdir(parents=True, exist_ok=True)
    ignore = directory / ".gitignore"
    if not ignore.exists():
        ignore.write_text(IGNORE_EVERYTHING)
