"""Lines of output for the steps of an upgrade, and waiting for conditions."""

from __future__ import annotations

import time
from collections.abc import Callable

from dora_cli import output
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.decisions.node_changes import Nodes
from dora_cli.cluster.decisions.preflight import NotReady
from dora_config import DoraError
from dora_config.cluster.models import Cluster

RECONNECT_TIMEOUT = 30.0
POLL_INTERVAL = 0.5


class Step:
    """Prints ``  Restart service... OK`` at its end."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._begun = time.monotonic()

    def ok(self, detail: str = "") -> None:
        output.write(f"  {self._label}... OK" + (f" ({detail})" if detail else ""))

    def ok_with_time(self) -> None:
        self.ok(f"{time.monotonic() - self._begun:.1f}s")

    def failed(self) -> None:
        output.write(f"  {self._label}... FAILED")


def poll(condition: Callable[[], bool], problem: str) -> None:
    """Wait for a condition; raises NotReady with ``problem``."""
    deadline = time.monotonic() + RECONNECT_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise NotReady(f"{problem} within {RECONNECT_TIMEOUT:g} s")
        time.sleep(POLL_INTERVAL)


def wait_for_nodes(cluster: Cluster, before: Nodes) -> None:
    """Wait until a new coordinator has every node of the old one; raises NotReady."""
    step = Step("Waiting for its daemons")
    try:
        poll(
            lambda: before.keys() <= queries.fetch_nodes(cluster).keys(),
            "not all nodes are back",
        )
    except DoraError:
        step.failed()
        missing = sorted(node for _, node in before.keys() - queries.fetch_nodes(cluster).keys())
        raise NotReady(
            f"the coordinator was replaced, but it misses nodes: {', '.join(missing)}; see "
            "`dora cluster status`"
        ) from None
    step.ok_with_time()
