"""`dora self update`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dora_cli import output
from dora_cli._version import __version__
from dora_cli.commands.self.installers import installer_commands


def main(
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Only print the installed version.")
    ] = False,
) -> None:
    """Print how to update dora."""
    output.write(f"dora {__version__}, installed for {sys.executable}")
    if check_only:
        output.write("dora does not check for newer versions; use your installer")
        return
    output.write("dora is a Python package: update it with the tool that installed it")
    for line in installer_commands("pip install --upgrade dora-cli", "upgrade dora-cli"):
        output.write(line)
