"""`dora node hold`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli import output
from dora_cli.coordinator import calls
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowOption,
    NodeArgument,
    connect,
)


def main(
    node: NodeArgument,
    reason: Annotated[str, typer.Argument(help="Shown to those who wait.")] = "held by an operator",
    dataflow: DataflowOption = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Keep a node from being replaced, restarted, stopped or removed until `dora node release`.

    `dora cluster apply` and `upgrade`, `dora node` and `--watch` wait and show the reason; --force
    overrides. `dora stop` and `dora restart` do not wait.
    """
    from dora_config.protocol.runner import Done, HoldNode

    request = HoldNode(node=node, reason=reason[:200] or "held by an operator")
    with connect(coordinator_addr, coordinator_port) as client:
        calls.call(client, dataflow, node, request, Done)
    output.write(f'node "{node}" holds updates')
