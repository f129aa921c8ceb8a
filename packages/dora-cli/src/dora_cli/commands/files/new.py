"""`dora new`."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from dora_cli import output, templates
from dora_config import DoraError
from dora_config.atomic_write import write_file


class TemplateKind(StrEnum):
    """Values of `--kind`."""

    DATAFLOW = "dataflow"
    NODE = "node"


class TargetExists(DoraError):
    """The folder already exists; nothing was written."""


def main(
    name: Annotated[str, typer.Argument(help="The folder to create.")],
    kind: Annotated[
        TemplateKind,
        typer.Option("--kind", help="A runnable dataflow, or a Python project with one node."),
    ] = TemplateKind.DATAFLOW,
    lang: Annotated[
        str, typer.Option("--lang", metavar="LANGUAGE", help="Only python is supported.")
    ] = "python",
) -> None:
    """Create an example dataflow (two talkers and a listener) or a node project."""
    if lang.lower() != "python":
        raise typer.BadParameter(f"{lang!r}: only Python is supported; use --lang python")
    folder = Path(name)
    try:
        files = _files(kind, folder.name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if folder.exists():
        raise TargetExists(f"{folder} already exists; choose another name or remove it")
    try:
        for relative, text in files.items():
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(target, text)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    output.write(f"created {kind} {folder}:")
    for relative in files:
        output.write(f"  {folder / relative}")
    output.write("next:")
    for line in _next(kind, folder):
        output.write(f"  {line}")


def _files(kind: TemplateKind, name: str) -> dict[str, str]:
    if kind is TemplateKind.NODE:
        return dict(templates.node_files(name))
    templates.package_name(name)
    return dict(templates.dataflow_files(name))


def _next(kind: TemplateKind, folder: Path) -> list[str]:
    if kind is TemplateKind.NODE:
        return [f"cd {quote(str(folder))}", "pip install -e . pytest", "pytest"]
    return [f"cd {quote(str(folder))}", "dora run dataflow.yml"]
