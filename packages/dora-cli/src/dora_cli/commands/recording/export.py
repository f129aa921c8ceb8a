"""`dora recording export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dora_cli import output

COLUMNS = ("FILE", "MESSAGES")


def main(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE..", help="The recording, or its files.")
    ],
    folder: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder; default the recording's name."),
    ] = None,
) -> None:
    """Write the messages of a recording to Parquet, one file per output and one row per message."""
    from dora_daemon.recording.parquet import export
    from dora_daemon.recording.reading import Recording, merged

    recordings = [Recording(path) for path in files]
    written = export(merged(recordings), folder or files[0].with_suffix(""))
    output.table(COLUMNS, list(written.items()))
