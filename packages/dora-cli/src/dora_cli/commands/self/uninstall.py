"""`dora self uninstall`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dora_cli import output
from dora_cli._version import __version__
from dora_cli.commands.self.installers import installer_commands
from dora_cli.diagnosis import WHEELS


def main(
    force: Annotated[
        bool, typer.Option("--force", help="Accepted for compatibility; has no effect.")
    ] = False,
) -> None:
    """Print how to remove dora."""
    output.write(f"dora {__version__}, installed for {sys.executable}")
    output.write("dora is a Python package: remove it with the tool that installed it")
    wheels = " ".join(reversed(WHEELS))
    for line in installer_commands(f"pip uninstall {wheels}", "uninstall dora-cli"):
        output.write(line)
    output.write("remaining settings and state: ~/.config/dora and ~/.local/state/dora")
