"""The command `dora self wheels`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dora_cli import output
from dora_cluster._version import __version__


def wheels(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the wheels.")],
    platform: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            metavar="PLATFORM",
            help="Platform, such as aarch64-glibc2.36-py3.11 (repeatable); default: this one.",
        ),
    ] = None,
) -> None:
    """Fill a folder with the wheels of dora and of what it needs, to install dora elsewhere.

    `pip install --no-index --find-links DIR DIR/dora_*.whl` installs dora from it without a
    network; `dora cluster ... --offline DIR` takes from it what machines need.
    """
    from dora_cluster.bundle.dependencies import Platform, download
    from dora_cluster.bundle.own_packages import own_packages, write_wheels
    from dora_cluster.remote_program.versions import platform_facts

    chosen = [Platform.from_key(key) for key in platform or ()]
    written = write_wheels(own_packages(), folder)
    output.write(f"{folder}: {len(written)} wheels of dora {__version__}")
    for one in chosen or [Platform.from_probe(platform_facts())]:
        output.write(f"{folder}: {download(one, folder)} wheels for {one.key}")
