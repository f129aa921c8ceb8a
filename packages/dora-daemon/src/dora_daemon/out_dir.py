"""Directory `out` beside a dataflow file: logs of its runs, its session file."""

from __future__ import annotations

from pathlib import Path

OUT_DIR = "out"


def prepare_out_dir(directory: Path) -> None:
    """Create an `out` directory, which version control ignores unless it has a .gitignore."""
    directory.mkdir(parents=True, exist_ok=True)
    ignore = directory / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
