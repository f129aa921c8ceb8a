"""`dora expand`: a dataflow with its modules applied, as one flat file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dora_cli import dataflow_file, options, output

STAND_IN = "user"
"""The node that gives a module its inputs when the module is looked at alone."""
INSTANCE = "module"

app = options.application()


@app.command()
def expand(
    path: options.DataflowFile,
    module: Annotated[
        bool, typer.Option("--module", help="PATH is a module file, to be checked alone.")
    ] = False,
) -> None:
    """Print a dataflow as one flat file, its modules applied."""
    from dora_config.expand import expand_dataflow

    if module:
        output.write(_expanded_module(path))
    else:
        output.write(expand_dataflow(dataflow_file.load(path).resolved).rstrip())


def _expanded_module(path: Path) -> str:
    """The nodes of a module whose every input is connected, `_mod/<port>` where it is read."""
    import json

    from dora_config import parse_dataflow
    from dora_config.expand import dataflow_to_dict
    from dora_config.yaml_text import dump_yaml

    dataflow_file.require(path)
    ports = _input_ports(path)
    around = {
        "nodes": [
            {"id": STAND_IN, "path": "dynamic", "outputs": ports},
            {
                "id": INSTANCE,
                "module": path.name,
                "inputs": {port: f"{STAND_IN}/{port}" for port in ports},
            },
        ]
    }
    # Every problem is in the module's own file: the file around it is made here and right.
    loaded = parse_dataflow(json.dumps(around), path=path.with_name(f"{path.stem}.expanded.yml"))
    nodes = dataflow_to_dict(loaded.resolved)["nodes"]
    inner = [_as_in_module(node) for node in nodes if node["id"] != STAND_IN]
    return dump_yaml({"nodes": inner}).rstrip()


def _input_ports(path: Path) -> list[str]:
    """The inputs that a module file declares; empty where it is too wrong to tell."""
    from dora_config.yaml_text import read_document

    document = read_document(path.read_text(), str(path))
    interface = document.data.get("module") if isinstance(document.data, dict) else None
    if not isinstance(interface, dict):
        return []
    declared = [interface.get(key) or [] for key in ("inputs", "inputs_optional")]
    return [port for ports in declared if isinstance(ports, list) for port in map(str, ports)]


def _as_in_module(node: dict[str, Any]) -> dict[str, Any]:
    """A node under its own id, reading ports as `_mod/<port>` and siblings by their ids."""

    def source(text: str) -> str:
        if text.startswith(f"{STAND_IN}/"):
            return "_mod/" + text.removeprefix(f"{STAND_IN}/")
        return text.removeprefix(f"{INSTANCE}.")

    def connection(wanted: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(wanted, str):
            return source(wanted)
        return {**wanted, "source": source(wanted["source"])}

    inputs = {name: connection(wanted) for name, wanted in node.get("inputs", {}).items()}
    own = {**node, "id": node["id"].removeprefix(f"{INSTANCE}.")}
    return {**own, "inputs": inputs} if inputs else own
