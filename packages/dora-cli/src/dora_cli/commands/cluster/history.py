"""`dora cluster history`."""

from __future__ import annotations

import time

from dora_cli import options, output
from dora_cli.commands.cluster.arguments import OptionalFleetFile, coordinator_in
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort


def main(
    path: OptionalFleetFile = None,
    output_format: options.Output = options.TableFormat.TABLE,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show who changed the fleet, when, what, and how it went."""
    from dora_config.protocol.fleet import FleetHistory, GetFleetHistory

    with coordinator_in(path, coordinator_addr, coordinator_port) as client:
        entries = client.request(GetFleetHistory(), FleetHistory).generations
    if output_format is options.TableFormat.JSON:
        for entry in entries:
            output.json_line(entry.model_dump())
        return
    for entry in entries:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at))
        output.write(f"generation {entry.generation}  {at}  {entry.action} by {entry.by}")
        for change in entry.changes:
            output.write(f"  {change}")
        output.write(f"  -> {entry.outcome}")
    if not entries:
        output.write("nothing was applied")
