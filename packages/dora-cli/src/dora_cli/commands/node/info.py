"""`dora node info`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dora_cli import options, output
from dora_cli.commands.node.arguments import as_json, as_text
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowOption,
    NodeArgument,
    connect,
    dataflow_ref,
)
from dora_config import DoraError

if TYPE_CHECKING:
    from dora_config.protocol.control import Described


class NoSuchNode(DoraError):
    """The dataflow has no node of that id."""


def main(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    output_format: options.Output = options.TableFormat.TABLE,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show one node: daemon, inputs, outputs, status, CPU and memory."""
    from dora_cli.coordinator import calls
    from dora_config.protocol.control import ListNodes, NodeList

    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        found = calls.describe(client, dataflow)
        rows = client.request(ListNodes(dataflow=dataflow_ref(found.uuid)), NodeList).nodes
    summary = next((row for row in rows if row.node == node), None)
    if summary is None:
        known = ", ".join(sorted(row.node for row in rows))
        raise NoSuchNode(f'the dataflow has no node "{node}"; its nodes: {known}')
    inputs, outputs = _ports(found, node)
    if output_format is options.TableFormat.JSON:
        output.json_line({**as_json(summary), "inputs": inputs, "outputs": outputs})
        return
    spec = found.spec.resolved.node(node)
    output.write(f"Node: {node}")
    output.write(f"Dataflow: {summary.dataflow_name or summary.dataflow}")
    output.write(f"Daemon: {summary.daemon}")
    output.write(f"Path: {spec.path or '-'}")
    output.write(f"Restart policy: {spec.restart.policy}")
    for name, source in inputs.items():
        output.write(f"Input: {name} <- {source}")
    for name, readers in outputs.items():
        output.write(f"Output: {name} -> {', '.join(readers) or '(no subscribers)'}")
    text = as_text(summary)
    output.write(
        f"Status: {text['STATUS']}, PID {text['PID']}, CPU {text['CPU']}, "
        f"memory {text['MEMORY']}, restarts {text['RESTARTS']}"
    )
    if summary.error is not None:
        output.write(f"Error: {summary.error}")


def _ports(found: Described, node: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the source of each input and the readers of each output."""
    resolved = found.spec.resolved
    spec = resolved.node(node)
    inputs = {name: str(one.source) for name, one in spec.inputs.items()}
    outputs: dict[str, list[str]] = {name: [] for name in spec.outputs}
    for source, consumer, input_id in resolved.edges():
        if source.node == node:
            outputs.setdefault(source.output, []).append(f"{consumer}/{input_id}")
    return inputs, outputs
