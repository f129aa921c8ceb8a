"""`dora down`."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli import output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect


def main(
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Also stop running dataflows.")
    ] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Shut down the coordinator and its daemons; refused while dataflows run, unless forced."""
    from dora_config.errors import DoraError
    from dora_config.protocol.control import Destroy, Destroyed

    with connect(coordinator_addr, coordinator_port) as client:
        left = client.request(Destroy(force=force), Destroyed).left
        client.wait_until_gone()
    if left:
        names = ", ".join(f'"{daemon}"' for daemon in left)
        raise DoraError(
            f"the coordinator has ended, but these daemons did not answer: {names}; they and their "
            "nodes may still run. End them on their machines, or start the coordinator again: it "
            "stops those nodes when their daemons connect"
        )
    output.write("coordinator and daemons destroyed successfully")
