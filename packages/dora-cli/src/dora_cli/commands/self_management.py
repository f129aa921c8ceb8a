"""`dora self`: whether this installation works, and how to update or remove it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dora_cli import options, output
from dora_cli._version import __version__

WHEELS = ("dora-cli", "dora-coordinator", "dora-daemon", "dora-node-api", "dora-config")

app = options.application()


@app.callback()
def _group() -> None:
    """Whether this installation works, and how to update or remove it."""


@app.command()
def update(
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Only say what is installed.")
    ] = False,
) -> None:
    """Say how to update dora."""
    output.write(f"dora {__version__}, installed for {sys.executable}")
    if check_only:
        output.write("dora does not look for newer versions by itself; your installer does")
        return
    output.write("dora is a Python package: the tool that installed it updates it")
    for line in _ways("pip install --upgrade dora-cli", "upgrade dora-cli"):
        output.write(line)


@app.command()
def test() -> None:
    """Run a dataflow on two daemons of its own; exit code 1 when it fails."""
    from dora_cli import self_test

    self_test.run()
    output.write(f"dora {__version__} works, with {sys.executable}")


@app.command()
def wheels(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to put them.", show_default=False)
    ],
    platform: Annotated[
        list[str],
        typer.Option(
            "--for",
            metavar="PLATFORM",
            help="Such as aarch64-glibc2.36-py3.11 (repeatable).",
            show_default=False,
        ),
    ],
) -> None:
    """Fetch what dora needs on machines of these kinds, for `--offline` of `dora cluster`."""
    from dora_cli.bundle.dependencies import download
    from dora_cli.bundle.platform import Platform

    for one in [Platform.from_key(key) for key in platform]:
        output.write(f"{folder}: {download(one, folder)} wheels for {one.key}")


@app.command()
def uninstall(
    force: Annotated[
        bool, typer.Option("--force", help="Accepted and without effect: nothing is removed.")
    ] = False,
) -> None:
    """Say how to remove dora."""
    output.write(f"dora {__version__}, installed for {sys.executable}")
    output.write("dora is a Python package: the tool that installed it removes it")
    for line in _ways(f"pip uninstall {' '.join(WHEELS)}", "uninstall dora-cli"):
        output.write(line)
    output.write("settings and state that stay: ~/.config/dora and ~/.local/state/dora")


def _ways(pip: str, tool: str) -> list[str]:
    return [
        f"  pip:  {sys.executable} -m {pip}",
        f"  uv:   uv tool {tool}",
        f"  pipx: pipx {tool}",
    ]
