"""`dora completion`."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dora_cli import output


class Shell(StrEnum):
    """Supported shells."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


def main(
    shell: Annotated[Shell | None, typer.Argument(help="The shell; default $SHELL.")] = None,
) -> None:
    """Print the completion script of a shell.

    For bash, put this line in ~/.bashrc: eval "$(dora completion bash)"
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    chosen = shell or _login_shell()
    script = get_completion_script(
        prog_name="dora", complete_var="_DORA_COMPLETE", shell=chosen.value
    )
    output.write(script)


def _login_shell() -> Shell:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in list(Shell):
        known = ", ".join(Shell)
        raise typer.BadParameter(f"$SHELL is not a supported shell; give one of {known}")
    return Shell(name)
