"""Clusters of one machine."""

from __future__ import annotations

from dora_config.cluster.models import Cluster, Coordinator, Machine

MACHINES = [
    Machine(id="robot", host="10.0.0.2"),
    Machine(id="r.1_a-b", host="h", user="u", port=2222, daemon_port=6000),
    Machine(id="gpu", host="h", labels={"gpu": "true", "arch": "arm64"}),
    Machine(id="far", host="h", zenoh_addr="10.0.0.3"),
    Machine(id="far", host="h", zenoh_addr="fd00::3", zenoh_port=5456),
]


def cluster(machine: Machine) -> Cluster:
    return Cluster(coordinator=Coordinator(addr="10.0.0.1", port=7000), machines=(machine,))
