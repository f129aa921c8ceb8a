"""`dora test`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from dora_cli import output
from dora_cli.command import function_command


def _test(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARGUMENT]..", help="Arguments of pytest, such as -k or a file."),
    ] = None,
) -> None:
    """Run the tests of this folder with pytest, with dataflows in virtual time.

    Uses the interpreter of `.venv` here or in a parent folder if dora-testing is installed there,
    otherwise the one that runs dora. The exit code comes from pytest.
    """
    python = interpreter(Path.cwd())
    sys.stdout.flush()
    os.execv(python, [python, "-m", "pytest", *(arguments or ())])


def interpreter(folder: Path) -> str:
    """Return the interpreter for the tests of a folder."""
    for parent in (folder, *folder.parents):
        python = parent / ".venv" / "bin" / "python"
        if python.is_file():
            has_plugin = [str(python), "-c", "import dora_testing.plugin"]
            if subprocess.run(has_plugin, capture_output=True, check=False).returncode == 0:
                return str(python)
            output.remark(f"note: {python} has no dora-testing; using {sys.executable}")
            break
    return sys.executable


test = function_command("test", _test, context_settings={"ignore_unknown_options": True})
