"""Prints which version runs where, when an upgrade or a rollback stops half-way."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from dora_cli import output
from dora_cli.cluster.coordinator import queries
from dora_config.cluster.models import Cluster
from dora_config.errors import DoraError
from dora_config.protocol.control import ClusterReport

SETTLE_TIMEOUT = 10.0
"""Seconds after which a coordinator or daemon that has not reconnected counts as absent."""
POLL_INTERVAL = 0.2


def with_version_report(cluster: Cluster, work: Callable[[], bool], remedy: str) -> bool:
    """Do ``work``; if it fails or is interrupted, print what runs where, and ``remedy``."""
    before = set(queries.connected_daemons(_fetch_report(cluster)))
    try:
        done = work()
    except (DoraError, OSError, KeyboardInterrupt):
        _write(cluster, before, remedy)
        raise
    if not done:
        _write(cluster, before, remedy)
    return done


def _write(cluster: Cluster, before: set[str], remedy: str) -> None:
    report = None
    with suppress(KeyboardInterrupt):  # a second Ctrl-C ends the wait
        deadline = time.monotonic() + SETTLE_TIMEOUT
        while time.monotonic() < deadline:
            report = _fetch_report(cluster)
            if report is not None and before <= queries.connected_daemons(report).keys():
                break
            time.sleep(POLL_INTERVAL)
    output.write("What runs now:")
    rows = _rows(cluster, report)
    width = max(len(name) for name, _ in rows)
    for name, version in rows:
        output.write(f"  {name.ljust(width)}  {version}")
    output.write(remedy)


def _rows(cluster: Cluster, report: ClusterReport | None) -> list[tuple[str, str]]:
    """Return the coordinator and each machine with its version."""
    if report is None:
        unknown = "unknown: the coordinator does not answer"
        return [("coordinator", "does not answer"), *((m.id, unknown) for m in cluster.machines)]
    daemons = {one.machine_id: one for one in report.machines}
    rows = [("coordinator", report.coordinator.release)]
    for machine in cluster.machines:
        found = daemons.get(machine.id)
        if found is None:
            rows.append((machine.id, "not connected"))
        else:
            suffix = "" if found.connected else " (not connected)"
            rows.append((machine.id, f"{found.release}{suffix}"))
    return rows


def _fetch_report(cluster: Cluster) -> ClusterReport | None:
    try:
        return queries.fetch_report(cluster)
    except DoraError:
        return None
