"""`dora validate`."""

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


class ProblemFormat(StrEnum):
    """Values of `--format`."""

    TEXT = "text"
    JSON = "json"


def main(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The dataflow file.")] = Path(
        "dataflow.yml"
    ),
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Treat all warnings as errors, also for missing programs and types."
        ),
    ] = False,
    strict_types: options.StrictTypes = False,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Accepted for compatibility; no check uses the network."),
    ] = False,
    output_format: Annotated[
        ProblemFormat, typer.Option("--format", help="Text, or one JSON object per problem.")
    ] = ProblemFormat.TEXT,
) -> None:
    """Check fields, ids, connections and types of a dataflow file; report all problems.

    A program that does not exist on this machine is a warning, because the node may run on another.
    """
    from dora_config import ConfigError, load_dataflow

    dataflow_file.require(path)
    try:
        loaded = load_dataflow(path, strict_types=strict_types or None, check_paths=True)
        problems, failed = (*loaded.warnings, *loaded.remarks), False
    except ConfigError as error:
        problems, failed = error.problems, True
    if strict:
        problems = tuple(
            replace(one, severity="error") if one.severity == "warning" else one for one in problems
        )
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


def _summary(loaded: LoadedDataflow) -> str:
    nodes, edges = len(loaded.resolved.nodes), len(tuple(loaded.resolved.edges()))
    warnings = sum(problem.severity == "warning" for problem in loaded.warnings)
    found = f"{output.counted(warnings, 'warning')}, no errors" if warnings else "no problems"
    return f"{output.counted(nodes, 'node')}, {output.counted(edges, 'edge')}, {found}"
