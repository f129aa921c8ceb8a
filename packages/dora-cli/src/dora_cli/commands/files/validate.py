"""`dora validate`: check a dataflow file and say what is wrong, all at once."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import dataflow_file, options, output
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_config import LoadedDataflow
    from dora_config.errors import Problem

app = options.application()


class ProblemFormat(StrEnum):
    """Text for people, or one JSON object a problem for editors."""

    TEXT = "text"
    JSON = "json"


@app.command()
def validate(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="The dataflow file.", show_default=False)
    ] = Path("dataflow.yml"),
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Every warning is an error: programs that do not exist here, types, and others.",
            show_default=False,
        ),
    ] = False,
    strict_types: options.StrictTypes = False,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Accepted and without effect: no check needs a network."),
    ] = False,
    output_format: Annotated[
        ProblemFormat,
        typer.Option("--format", help="Text, or one JSON object a problem for editors."),
    ] = ProblemFormat.TEXT,
) -> None:
    """Check a dataflow file: fields, ids, wiring and types; every problem at once.

    A program that does not exist here is a warning, because the machine on which the node runs
    may have it.
    """
    from dora_config import ConfigError, load_dataflow

    dataflow_file.require(path)
    try:
        loaded = load_dataflow(path, strict_types=strict_types or None, check_paths=True)
        problems, failed = (*loaded.warnings, *loaded.remarks), False
    except ConfigError as error:
        problems, failed = error.problems, True
    if strict:
        problems = tuple(_as_error(problem) for problem in problems)
        failed = failed or any(problem.severity == "error" for problem in problems)
    for problem in problems:
        if output_format is ProblemFormat.JSON:
            output.json_line(problem.to_json())
        else:
            output.write(str(problem))
    if failed:
        raise CommandFailed
    if output_format is ProblemFormat.TEXT:
        output.write(f"{path}: {_summary(loaded)}")


def _as_error(problem: Problem) -> Problem:
    return replace(problem, severity="error") if problem.severity == "warning" else problem


def _summary(loaded: LoadedDataflow) -> str:
    nodes, edges = len(loaded.resolved.nodes), len(tuple(loaded.resolved.edges()))
    warnings = sum(problem.severity == "warning" for problem in loaded.warnings)
    found = f"{_count(warnings, 'warning')}, no errors" if warnings else "no problems"
    return f"{_count(nodes, 'node')}, {_count(edges, 'edge')}, {found}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")
