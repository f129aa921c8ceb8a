"""`dora node`: the nodes of running dataflows, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator import calls as node_calls
from dora_cli.coordinator import options as coordinator
from dora_cli.coordinator.calls import DataflowOption, NodeArgument
from dora_config import DoraError

if TYPE_CHECKING:
    from dora_config.protocol.control import Described, NodeSummary

MB = 1024**2
DASH = "-"

app = options.application()


class NoSuchNode(DoraError):
    """The dataflow has no node of that id."""


@app.callback()
def node() -> None:
    """Look at the nodes of running dataflows, stop and restart them."""


@app.command(name="list")
def list_nodes(
    dataflow: Annotated[
        str | None,
        typer.Option(
            "--dataflow",
            "-d",
            help="UUID or name; by default all that run.",
            show_default=False,
        ),
    ] = None,
    output_format: options.Output = options.TableFormat.TABLE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only.")] = False,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """List nodes with their state, process and use of the machine."""
    from dora_config.protocol.control import ListNodes, NodeList

    which = coordinator.reference(dataflow) if dataflow is not None else None
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        nodes = client.ask(ListNodes(dataflow=which), NodeList).nodes
    if quiet:
        for one in nodes:
            output.write(one.node)
    elif output_format is options.TableFormat.JSON:
        for one in nodes:
            output.json_line(_as_json(one))
    else:
        columns = ["NODE", "STATUS", "PID", "CPU", "MEMORY", "RESTARTS", "DAEMON"]
        if which is None:
            columns.append("DATAFLOW")
        output.table(columns, [_as_cells(one)[: len(columns)] for one in nodes])
        for one in nodes:
            if one.error is not None:
                output.remark(f"{one.node}: {one.error}")


def _as_json(one: NodeSummary) -> dict[str, object]:
    return {
        "node": one.node,
        "status": one.status,
        "pid": one.pid,
        "cpu": one.cpu_percent,
        "memory": None if one.memory_bytes is None else round(one.memory_bytes / MB, 1),
        "restarts": one.restarts,
        "daemon": one.daemon,
        "dataflow": one.dataflow,
        "dataflow_name": one.dataflow_name,
    }


def _as_cells(one: NodeSummary) -> list[object]:
    cpu = DASH if one.cpu_percent is None else f"{one.cpu_percent:.1f}%"
    memory = DASH if one.memory_bytes is None else f"{one.memory_bytes / MB:.1f} MB"
    pid = DASH if one.pid is None else one.pid
    dataflow = one.dataflow_name or one.dataflow
    return [one.node, one.status, pid, cpu, memory, one.restarts, one.daemon, dataflow]


@app.command()
def info(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    output_format: options.Output = options.TableFormat.TABLE,
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Show one node: where it runs, what it reads and sends, what it uses."""
    from dora_config.protocol.control import ListNodes, NodeList

    with coordinator.client(coordinator_addr, coordinator_port) as client:
        found = node_calls.describe(client, dataflow)
        which = coordinator.reference(found.uuid)
        rows = client.ask(ListNodes(dataflow=which), NodeList).nodes
    one = next((row for row in rows if row.node == node), None)
    if one is None:
        known = ", ".join(sorted(row.node for row in rows))
        raise NoSuchNode(f'there is no node "{node}" in this dataflow; its nodes are: {known}')
    inputs, outputs = _ports(found, node)
    if output_format is options.TableFormat.JSON:
        output.json_line({**_as_json(one), "inputs": inputs, "outputs": outputs})
        return
    spec = found.spec.resolved.node(node)
    output.write(f"Node: {node}")
    output.write(f"Dataflow: {one.dataflow_name or one.dataflow}")
    output.write(f"Daemon: {one.daemon}")
    output.write(f"Path: {spec.path or '-'}")
    output.write(f"Restart policy: {spec.restart.policy}")
    for name, source in inputs.items():
        output.write(f"Input: {name} <- {source}")
    for name, readers in outputs.items():
        output.write(f"Output: {name} -> {', '.join(readers) or '(no subscribers)'}")
    _, status, pid, cpu, memory, restarts, _, _ = _as_cells(one)
    output.write(f"Status: {status}, PID {pid}, CPU {cpu}, memory {memory}, restarts {restarts}")
    if one.error is not None:
        output.write(f"Error: {one.error}")


def _ports(found: Described, node: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Sources by input, readers by output."""
    resolved = found.spec.resolved
    spec = resolved.node(node)
    inputs = {name: str(one.source) for name, one in spec.inputs.items()}
    outputs: dict[str, list[str]] = {name: [] for name in spec.outputs}
    for source, consumer, input_id in resolved.edges():
        if source.node == node:
            outputs.setdefault(source.output, []).append(f"{consumer}/{input_id}")
    return inputs, outputs


def _grace(text: str) -> float:
    from dora_config.yaml.quantities import parse_duration

    return options.checked(parse_duration)(text)


@app.command()
def stop(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    grace: Annotated[
        str, typer.Option("--grace", metavar="DURATION", help="Time from STOP to SIGTERM.")
    ] = "10s",
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Stop one node for good and wait for its end; the others go on."""
    from dora_config.protocol.runner import Done, StopNode

    request = StopNode(node=node, grace=_grace(grace))
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        node_calls.call(client, dataflow, node, request, Done)
    output.write(f'node "{node}" stopped')


@app.command()
def restart(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    grace: Annotated[
        str, typer.Option("--grace", metavar="DURATION", help="Time from STOP to SIGTERM.")
    ] = "5s",
    coordinator_addr: coordinator.Addr = None,
    coordinator_port: coordinator.Port = None,
) -> None:
    """Stop one node and start it again, whatever its policy; those that read from it go on."""
    from dora_config.protocol.runner import Done, RestartNode

    request = RestartNode(node=node, grace=_grace(grace))
    with coordinator.client(coordinator_addr, coordinator_port) as client:
        node_calls.call(client, dataflow, node, request, Done)
    output.write(f'node "{node}" restarted')
