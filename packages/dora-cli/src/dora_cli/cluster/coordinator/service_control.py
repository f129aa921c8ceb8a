"""Starts and stops the coordinator's systemd service, for `up`, `down` and `doctor`."""

from __future__ import annotations

from dora_cli import output
from dora_cli.cluster.coordinator.service import (
    POLL_INTERVAL,
    CoordinatorService,
    installed_service,
)
from dora_cli.cluster.decisions.coordinator_unit import address, coordinator_service_name
from dora_cli.cluster.decisions.preflight import NotReady
from dora_cli.polling import wait_until
from dora_cli.ssh import SudoUnavailable
from dora_config.cluster.models import Cluster
from dora_config.errors import DoraError

END_TIMEOUT = 5.0


def start_service(cluster: Cluster, *, recreate_store: bool) -> bool:
    """Start the service and wait until it answers; return False if it is not installed."""
    with installed_service(cluster) as service:
        if service is None:
            if cluster.coordinator.host is not None:
                raise NotReady(
                    f"no coordinator answers at {address(cluster)}, and none is installed on "
                    f"{cluster.coordinator.target} (`coordinator.host`); install it: "
                    "dora cluster install"
                )
            return False
        name = service.host.service
        try:
            if recreate_store:
                service.stop()
                service.host.call("coordinator.put_store_aside")
            service.start()
        except SudoUnavailable as problem:
            raise NotReady(
                f"the coordinator's service {name} does not run, and only root can start it; run "
                f"`sudo systemctl start {name}` on {service.host.where}, then this command again"
            ) from problem
        service.wait_until_it_answers()
    return True


def service_remedy(cluster: Cluster) -> str | None:
    """Return how to repair a service that does not answer; None if it is not installed."""
    try:
        with installed_service(cluster) as service:
            if service is not None:
                name, where = service.host.service, service.host.where
                unit = "--user-unit" if service.user else "-u"
                return (
                    f"its service {name} on {where} is {service.state()}; see its output there: "
                    f"journalctl {unit} {name}; start it: dora cluster up"
                )
    except (DoraError, OSError) as problem:
        return f"its machine cannot be examined: {problem}"
    return None


def stop_service(cluster: Cluster) -> None:
    """Stop the service if it is installed; call it after the coordinator was destroyed."""
    try:
        with installed_service(cluster) as service:
            if service is None:
                return
            if not _ended(service):
                service.stop()
            output.remark(
                f"The coordinator's service {service.host.service} starts again with "
                f"{service.host.where}; see `dora cluster uninstall`"
            )
    except SudoUnavailable:
        name = coordinator_service_name(cluster)
        output.warn(f"the coordinator's service may still run: run `sudo systemctl stop {name}`")
    except (DoraError, OSError) as problem:
        output.warn(f"the coordinator's service was not examined: {problem}")


def _ended(service: CoordinatorService) -> bool:
    """Return whether it ends without `systemctl stop`, which only root can run."""
    ends = ("inactive", "failed")
    return wait_until(lambda: service.state() in ends, END_TIMEOUT, every=POLL_INTERVAL)
