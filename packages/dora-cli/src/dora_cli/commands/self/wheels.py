"""`dora self wheels`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dora_cli import output


def main(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the wheels.")],
    platform: Annotated[
        list[str],
        typer.Option(
            "--for",
            metavar="PLATFORM",
            help="Platform, such as aarch64-glibc2.36-py3.11 (repeatable).",
        ),
    ],
) -> None:
    """Download the wheels that dora needs on other machines, for `dora cluster ... --offline`."""
    from dora_cli.bundle.dependencies import download
    from dora_cli.bundle.platform import Platform

    for one in [Platform.from_key(key) for key in platform]:
        output.write(f"{folder}: {download(one, folder)} wheels for {one.key}")
