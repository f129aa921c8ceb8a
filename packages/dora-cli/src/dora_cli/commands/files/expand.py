"""`dora expand`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import dataflow_file, options, output

if TYPE_CHECKING:
    from dora_config import LoadedModule


def main(
    path: options.DataflowFile,
    module: Annotated[bool, typer.Option("--module", help="Check PATH as a module file.")] = False,
) -> None:
    """Print a dataflow as one file, with its modules expanded."""
    from dora_config import expand_dataflow, load_module

    if not module:
        output.write(expand_dataflow(dataflow_file.load(path).resolved).rstrip())
        return
    dataflow_file.require(path)
    loaded = load_module(path)
    for problem in loaded.warnings:
        output.write(str(problem))
    output.write(f"{path}: {_summary(loaded)}")


def _summary(module: LoadedModule) -> str:
    """`module filter: 2 nodes (a, b), inputs raw, cfg (optional), outputs clean`."""
    inputs = [*module.inputs, *(f"{name} (optional)" for name in module.optional_inputs)]
    nodes = f"{output.counted(len(module.node_ids), 'node')} ({', '.join(module.node_ids)})"
    return (
        f"module {module.name}: {nodes}, inputs {', '.join(inputs) or 'none'}, "
        f"outputs {', '.join(module.outputs) or 'none'}"
    )
