"""`dora graph`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dora_cli import dataflow_file, options, output
from dora_config.atomic_write import write_file


def main(
    path: options.DataflowFile,
    mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print Mermaid text instead of writing an HTML page.")
    ] = False,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
) -> None:
    """Draw a dataflow as an offline HTML page or as Mermaid text."""
    from dora_cli.ui.graph_page import graph_page
    from dora_config import mermaid_graph

    if mermaid and open_page:
        raise typer.BadParameter("--open needs the HTML page, which --mermaid does not write")
    loaded = dataflow_file.load(path)
    if mermaid:
        output.write(mermaid_graph(loaded.resolved).rstrip())
        return
    page = path.with_name(f"{path.stem}-graph.html")
    write_file(page, graph_page(loaded.resolved, loaded.resolved.name or path.stem))
    output.write(f"wrote {page}")
    if open_page:
        _open(page)


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        output.warn(f"cannot start a browser; open {page} by hand")
