"""Commands about dataflow files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dora_cli import dataflow_file, options, output, templates
from dora_cli.errors import CommandFailed
from dora_config.atomic_write import write_file
from dora_config.errors import ConfigError, DoraError

if TYPE_CHECKING:
    from dora_config.dataflow.loader import LoadedDataflow, LoadedModule


def _kinds(ctx: Any) -> list[str]:
    """Complete `--kind`."""
    return list(templates.kinds())


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The folder to create.")],
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="KIND",
            autocompletion=_kinds,
            help=(
                "dataflow: a runnable dataflow; node: a Python project with one node; or a project"
                " of a plug-in."
            ),
        ),
    ] = "dataflow",
    lang: Annotated[
        str, typer.Option("--lang", metavar="LANGUAGE", help="Only python is supported.")
    ] = "python",
) -> None:
    """Create an example dataflow (two talkers and a listener), a node project or another one."""
    if lang.lower() != "python":
        raise typer.BadParameter(f"{lang!r}: only Python is supported; use --lang python")
    folder = Path(name)
    try:
        files, commands = templates.project(kind, folder.name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if folder.exists():
        raise DoraError(f"{folder} already exists; choose another name or remove it")
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
    for line in (f"cd {quote(str(folder))}", *commands):
        output.write(f"  {line}")


def validate(
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
        options.TextFormat,
        typer.Option("--format", "-f", help="Text, or one JSON object per problem."),
    ] = "text",
) -> None:
    """Check fields, ids, connections and types of a dataflow file; report all problems.

    A program that does not exist on this machine is a warning, because the node may run on another.
    """
    from dora_config.dataflow.loader import load_dataflow

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
        if output_format == "json":
            output.json_line(problem.to_json())
        else:
            output.write(str(problem))
    if failed:
        raise CommandFailed
    if output_format == "text":
        output.write(f"{path}: {_summary(loaded)}")


def _summary(loaded: LoadedDataflow) -> str:
    nodes, edges = len(loaded.resolved.nodes), len(tuple(loaded.resolved.edges()))
    warnings = sum(problem.severity == "warning" for problem in loaded.warnings)
    found = f"{output.counted(warnings, 'warning')}, no errors" if warnings else "no problems"
    return f"{output.counted(nodes, 'node')}, {output.counted(edges, 'edge')}, {found}"


def graph(
    path: options.DataflowFile,
    mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print Mermaid text instead of writing an HTML page.")
    ] = False,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
) -> None:
    """Draw a dataflow as an offline HTML page or as Mermaid text."""
    from dora_cli import page as pages
    from dora_config.render.mermaid import mermaid_graph

    if mermaid and open_page:
        raise typer.BadParameter("--open needs the HTML page, which --mermaid does not write")
    loaded = dataflow_file.load(path)
    if mermaid:
        output.write(mermaid_graph(loaded.resolved).rstrip())
        return
    page = path.with_name(f"{path.stem}-graph.html")
    write_file(page, pages.graph(loaded.resolved, loaded.resolved.name or path.stem))
    output.write(f"wrote {page}")
    if open_page:
        _open(page)


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        output.warn(f"cannot start a browser; open {page} by hand")


def expand(
    path: options.DataflowFile,
    module: Annotated[bool, typer.Option("--module", help="Check PATH as a module file.")] = False,
) -> None:
    """Print a dataflow as one file, with its modules expanded."""
    from dora_config.dataflow.expand import expand_dataflow
    from dora_config.dataflow.loader import load_module

    if not module:
        output.write(expand_dataflow(dataflow_file.load(path).resolved).rstrip())
        return
    dataflow_file.require(path)
    loaded = load_module(path)
    for problem in loaded.warnings:
        output.write(str(problem))
    output.write(f"{path}: {_module_summary(loaded)}")


def _module_summary(module: LoadedModule) -> str:
    """Return `module filter: 2 nodes (a, b), inputs raw, cfg (optional), outputs clean`."""
    ports = module.interface
    optional = (f"{name} (optional)" for name in ports.inputs_optional or ())
    inputs = [*(ports.inputs or ()), *optional]
    nodes = f"{output.counted(len(module.node_ids), 'node')} ({', '.join(module.node_ids)})"
    return (
        f"module {ports.name}: {nodes}, inputs {', '.join(inputs) or 'none'}, "
        f"outputs {', '.join(ports.outputs or ()) or 'none'}"
    )


def schema(
    kind: Annotated[
        Literal["dataflow", "module", "cluster", "fleet"],
        typer.Argument(metavar="KIND", help="Kind of file."),
    ],
) -> None:
    """Print the JSON Schema of dataflow, module, cluster or fleet files, for editors."""
    import json

    from dora_config.render.schema import json_schema

    output.write(json.dumps(json_schema(kind), indent=2, ensure_ascii=False))
