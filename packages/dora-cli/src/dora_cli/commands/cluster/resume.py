"""`dora cluster resume`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.commands.cluster.arguments import OptionalFleetFile, coordinator_in
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort


def main(
    path: OptionalFleetFile = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Continue a roll-out that was paused or failed; what failed is tried again."""
    from dora_cli.live import fleet
    from dora_config.protocol.fleet import FleetReport, PauseFleet

    with coordinator_in(path, coordinator_addr, coordinator_port) as client:
        report = client.request(PauseFleet(paused=False, by=fleet.operator()), FleetReport)
    output.write(f"generation {report.generation} is resumed")
