"""`dora validate`: check a dataflow file and say what is wrong, all at once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import dataflow_file, options, output
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from dora_config import LoadedDataflow

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
    """Check a dataflow file: fields, ids, wiring and types; every problem at once."""
    from dora_config import ConfigError, load_dataflow

    dataflow_file.require(path)
    try:
        loaded = load_dataflow(path, strict_types=strict_types or None, check_paths=True)
        problems, failed = (*loaded.warnings, *loaded.remarks), False
    except ConfigError as error:
        problems, failed = error.problems, True
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
    found = f"{_count(warnings, 'warning')}, no errors" if warnings else "no problems"
    return f"{_count(nodes, 'node')}, {_count(edges, 'edge')}, {found}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")
