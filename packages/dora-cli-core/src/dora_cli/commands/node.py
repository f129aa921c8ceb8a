"""Commands of `dora node`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator import calls
from dora_cli.coordinator.completion import running_dataflows
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowOption,
    NodeArgument,
    connect as connect_to,
)
from dora_config.errors import DoraError, InvalidId
from dora_config.protocol.reports import ListNodes, NodeSummary
from dora_node_api.queue_policy import QueuePolicy

if TYPE_CHECKING:
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_config.protocol.control import Described
    from dora_config.protocol.runner import (
        ConnectInput,
        DisconnectInput,
        RemoveNode,
        RestartNode,
        StopNode,
    )


MB = 1024**2
HELD = "held by an operator"
DASH = "-"

FromYaml = Annotated[
    Path,
    typer.Option("--from-yaml", metavar="FILE", help="YAML file with the definition of the node."),
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="NODE/OUTPUT, or dora/timer/UNIT/VALUE or dora/logs as in a file."
    ),
]
TargetArgument = Annotated[str, typer.Argument(metavar="TARGET", help="Input, as NODE/INPUT.")]
Grace = Annotated[
    float, options.duration("--grace", "--grace-duration", help="Time from STOP to SIGTERM.")
]

ForceHold = Annotated[
    bool, typer.Option("--force", help="Do not wait for a node that holds updates (up to 300 s).")
]


def edge(source: str, target: str) -> dict[str, str]:
    """Return the fields of an `EdgeChange` between two arguments; raises BadParameter."""
    from dora_config.dataflow.sources import parse_source
    from dora_config.ids import parse_data_id, parse_node_id

    try:
        node, _, output = str(parse_source(source)).partition("/")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="SOURCE") from None
    reader, slash, port = target.partition("/")
    try:
        if not slash:
            raise ValueError(f'"{target}": expected NODE/INPUT, such as plot/image')
        return {
            "source": node,
            "output": output,
            "target": parse_node_id(reader),
            "input": parse_data_id(port),
        }
    except (InvalidId, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="TARGET") from None


def as_json(node: NodeSummary) -> dict[str, object]:
    """Return a node as the object that `--format json` prints."""
    return {
        "node": node.node,
        "status": node.status,
        "pid": node.pid,
        "cpu": node.cpu_percent,
        "memory": None if node.memory_bytes is None else round(node.memory_bytes / MB, 1),
        "restarts": node.restarts,
        "daemon": node.daemon,
        "dataflow": node.dataflow,
        "dataflow_name": node.dataflow_name,
    }


def as_text(node: NodeSummary) -> dict[str, str]:
    """Return the facts about a node as text, by the column of `dora node list`."""
    cpu, memory = node.cpu_percent, node.memory_bytes
    return {
        "NODE": node.node,
        "STATUS": node.status,
        "PID": DASH if node.pid is None else str(node.pid),
        "CPU": DASH if cpu is None else f"{cpu:.1f}%",
        "MEMORY": DASH if memory is None else f"{memory / MB:.1f} MB",
        "RESTARTS": str(node.restarts),
        "DAEMON": node.daemon,
        "DATAFLOW": node.dataflow_name or node.dataflow,
    }


def list_(
    dataflow: Annotated[
        str | None,
        typer.Option(
            "--dataflow",
            "-d",
            autocompletion=running_dataflows,
            help="UUID or name; by default all running dataflows.",
        ),
    ] = None,
    output_format: options.Output = "table",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only.")] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """List nodes with status, pid, CPU, memory and restarts."""
    with connect_to(coordinator_addr, coordinator_port, or_here=True) as client:
        nodes = client.request(ListNodes(dataflow=dataflow)).nodes
        if quiet:
            for node in nodes:
                output.write(node.node)
        elif output_format == "json":
            for node in nodes:
                output.json_line(as_json(node))
        else:
            columns = ["NODE", "STATUS", "PID", "CPU", "MEMORY", "RESTARTS", "DAEMON"]
            if dataflow is None:
                columns.append("DATAFLOW")
            rows = [as_text(node) for node in nodes]
            output.table(columns, [[row[column] for column in columns] for row in rows])
            for node in nodes:
                if node.error is not None:
                    output.remark(f"{node.node}: {node.error}")
                if node.held is not None:
                    output.remark(f"{node.node}: holds updates: {node.held}")


def info(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    output_format: options.Output = "table",
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show one node: daemon, inputs, outputs, status, CPU and memory."""
    with connect_to(coordinator_addr, coordinator_port, or_here=True) as client:
        found = calls.describe(client, dataflow)
        rows = client.request(ListNodes(dataflow=found.uuid)).nodes
        summary = next((row for row in rows if row.node == node), None)
        if summary is None:
            known = ", ".join(sorted(row.node for row in rows))
            raise DoraError(f'the dataflow has no node "{node}"; its nodes: {known}')
        inputs, outputs = _ports(found, node)
        if output_format == "json":
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


def _change(
    client: CoordinatorClient, dataflow: str | None, change: StopNode | RestartNode
) -> None:
    """Stop or restart a node; unless forced, wait for holds to end first."""
    from dora_cli.live import holds
    from dora_config.protocol.runner import Done

    if not change.force:
        holds.wait_for_release(client, dataflow, change.node)
    calls.call(client, dataflow, change.node, change, Done)


def _send(
    client: CoordinatorClient,
    dataflow: str | None,
    change: RemoveNode | ConnectInput | DisconnectInput,
) -> None:
    """Change the edges or the nodes of a running dataflow."""
    from dora_cli.live import sending

    with sending.reporting_interrupt():
        sending.change(client, calls.describe(client, dataflow).uuid, change)


def stop(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    grace: Grace = "10s",  # type: ignore[assignment]
    force: ForceHold = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop one node permanently and wait until it has ended; other nodes keep running."""
    from dora_config.protocol.runner import StopNode

    with connect_to(coordinator_addr, coordinator_port, or_here=True) as client:
        _change(client, dataflow, StopNode(node=node, grace=grace, force=force))
        output.write(f'node "{node}" stopped')


def restart(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    grace: Grace = "5s",  # type: ignore[assignment]
    force: ForceHold = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop one node and start it again, regardless of its restart policy; others keep running."""
    from dora_config.protocol.runner import RestartNode

    with connect_to(coordinator_addr, coordinator_port, or_here=True) as client:
        _change(client, dataflow, RestartNode(node=node, grace=grace, force=force))
        output.write(f'node "{node}" restarted')


def add(
    from_yaml: FromYaml,
    dataflow: DataflowOption = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Add a node to a running dataflow, on the machine that its `deploy` selects.

    The file contains one node as in a dataflow file, without the list `nodes`. If the node cannot
    be started, it is not added.
    """
    from dora_cli.live import sending

    with connect_to(coordinator_addr, coordinator_port) as client:
        with sending.reporting_interrupt():
            node, changed = sending.add(client, dataflow, from_yaml)
        output.write(f'node "{node}" added on daemon "{changed.daemon}"')


def remove(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    grace: Grace = "10s",  # type: ignore[assignment]
    force: ForceHold = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop a node and remove it from a running dataflow, with its edges."""
    from dora_cli.live import holds
    from dora_config.protocol.runner import RemoveNode

    with connect_to(coordinator_addr, coordinator_port) as client:
        if not force:
            holds.wait_for_release(client, dataflow, node)
        _send(client, dataflow, RemoveNode(node=node, grace=grace, force=force))
        output.write(f'node "{node}" removed')


def replace(
    node: NodeArgument,
    from_yaml: FromYaml,
    dataflow: DataflowOption = None,
    grace: Grace = "10s",  # type: ignore[assignment]
    force: ForceHold = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Run another definition of a node; other nodes keep running.

    The new process starts first; when it has connected, the old one is stopped. If the new one
    fails before that, the old one keeps running. Inputs are queued meanwhile.

    The file contains one node with the same id and inputs, without the list `nodes`.
    """
    from dora_cli.live import sending

    with connect_to(coordinator_addr, coordinator_port) as client:
        with sending.reporting_interrupt():
            changed = sending.replace(client, dataflow, node, from_yaml, grace, force=force)
        output.write(f'node "{node}" replaced on daemon "{changed.daemon}"')


def connect(
    source: SourceArgument,
    target: TargetArgument,
    dataflow: DataflowOption = None,
    queue_size: Annotated[
        int, typer.Option("--queue-size", min=1, max=16000, help="Messages that may be queued.")
    ] = 10,
    queue_policy: Annotated[
        QueuePolicy, typer.Option("--queue-policy", help="What happens when the queue is full.")
    ] = QueuePolicy.DROP_OLDEST,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Connect an output, a timer or logs to a new input of a running node.

    Both nodes may be on different machines.
    """
    from dora_config.protocol.runner import ConnectInput

    queue = {"queue_size": queue_size, "queue_policy": queue_policy.value}
    with connect_to(coordinator_addr, coordinator_port) as client:
        _send(client, dataflow, ConnectInput.model_validate({**edge(source, target), **queue}))
        output.write(f"connected {source} to {target}")


def disconnect(
    source: SourceArgument,
    target: TargetArgument,
    dataflow: DataflowOption = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Remove an input from a running node; messages queued there are dropped.

    The node gets INPUT_CLOSED, and STOP if it was its last open input.
    """
    from dora_config.protocol.runner import DisconnectInput

    with connect_to(coordinator_addr, coordinator_port) as client:
        _send(client, dataflow, DisconnectInput.model_validate(edge(source, target)))
        output.write(f"disconnected {source} from {target}")


def hold(
    node: NodeArgument,
    reason: Annotated[
        str, typer.Argument(metavar="REASON", help="Shown to those who wait.")
    ] = HELD,
    dataflow: DataflowOption = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Keep a node from being replaced, restarted, stopped or removed until `dora node release`.

    `dora cluster apply` and `upgrade`, `dora node` and `--watch` wait and show the reason; --force
    overrides. `dora stop` and `dora restart` do not wait.
    """
    from dora_config.protocol.runner import Done, HoldNode

    with connect_to(coordinator_addr, coordinator_port) as client:
        request = HoldNode(node=node, reason=reason[:200] or HELD)
        calls.call(client, dataflow, node, request, Done)
        output.write(f'node "{node}" holds updates')


def release(
    node: NodeArgument,
    dataflow: DataflowOption = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """End `dora node hold`."""
    from dora_config.protocol.runner import Done, HoldNode

    with connect_to(coordinator_addr, coordinator_port) as client:
        calls.call(client, dataflow, node, HoldNode(node=node, reason=""), Done)
        output.write(f'node "{node}" does not hold updates any more')
