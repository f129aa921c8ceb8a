"""`dora cluster status`."""

from __future__ import annotations

from dora_cli import options
from dora_cli.commands.cluster.arguments import OptionalFleetFile
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect


def main(
    path: OptionalFleetFile = None,
    output_format: options.Output = options.TableFormat.TABLE,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show the state of the coordinator's daemons and of the links between them."""
    from dora_cli.cluster.operations import leftovers
    from dora_cli.cluster.operations.status import show
    from dora_cli.cluster.ownership import known_clusters
    from dora_config.access import endpoint
    from dora_config.cluster.loader import load_cluster_of
    from dora_config.protocol.control import ClusterReport, ClusterStatus
    from dora_config.protocol.fleet import FleetReport, GetFleet

    if path is not None and (cluster := load_cluster_of(path)) is not None:
        coordinator = cluster.coordinator
        coordinator_addr = coordinator_addr or coordinator.addr
        coordinator_port = coordinator_port or coordinator.port
    with connect(coordinator_addr, coordinator_port) as client:
        report = client.request(ClusterStatus(), ClusterReport)
        fleet = client.request(GetFleet(), FleetReport)
    show(report, fleet, as_json=output_format is options.TableFormat.JSON)
    if (known := known_clusters.find(endpoint(coordinator_addr, coordinator_port))) is not None:
        leftovers.report_connected(known, report.machines)
