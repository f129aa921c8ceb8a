"""Clusters on test hosts: cluster files, nodes on their disks, running daemons and dataflows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from support.cluster.hosts import WORKSTATION, Host, Hosts
from support.dora import DORA, run_dora
from support.waiting import wait_until

from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import CoordinatorUnavailable
from dora_config.access import DEFAULT_PORT, current_place, endpoint
from dora_config.protocol.control import (
    ClusterStatus,
    DataflowSummary,
    ListDataflows,
)
from dora_config.protocol.snapshot import DaemonSummary

TICKER = """
import os, pathlib
from dora import Node

node = Node()
place = pathlib.Path("/var/tmp") / f"{node.node_id}.seen"
with place.open("a") as seen:
    print("began", os.getpid(), file=seen, flush=True)
    for event in node:
        if event["type"] == "INPUT":
            print("tick", file=seen, flush=True)
        elif event["type"] == "STOP":
            print("stop", file=seen, flush=True)
"""
OURS = ("dora daemon", "dora_daemon", "dora_node_api", "ticker.py")
READY = ("dora_daemon.runner --spare", "dora_node_api.zygote")


def cluster_file(hosts: Hosts, folder: Path, **fields: Mapping[str, Any]) -> Path:
    """A cluster file for all hosts, with the dora of the tests: hosts see its files."""
    given = {host.name: {"dora": str(DORA)} | dict(fields.get(host.name, {})) for host in hosts}
    return hosts.cluster_yml(folder / "cluster.yml", **given)


def put_script(host: Host, name: str, text: str) -> None:
    """Write a script into the home of a host's user."""
    script = host.path(f"/home/ubuntu/{name}")
    script.write_text(text)
    script.chmod(0o644)


def ticking(hosts: Hosts, folder: Path, **machines: str) -> Path:
    """A dataflow with a node on each of ``machines`` (node id to host name), its file there."""
    nodes = []
    for node, name in machines.items():
        put_script(hosts[name], "ticker.py", TICKER)
        nodes.append(
            f"  - id: {node}\n    path: /home/ubuntu/ticker.py\n    deploy: {{machine: {name}}}\n"
            "    inputs: {tick: dora/timer/millis/50}\n"
        )
    path = folder / "ticking.yml"
    path.write_text("nodes:\n" + "".join(nodes))
    return path


def seen(host: Host, node: str) -> list[str]:
    """Lines that a ticking node has written so far."""
    try:
        return host.path(f"/var/tmp/{node}.seen").read_text().splitlines()
    except (FileNotFoundError, IndexError):
        return []


def pids(host: Host, node: str) -> list[str]:
    """Process ids of a ticking node, one for each start."""
    return [line.split()[1] for line in seen(host, node) if line.startswith("began")]


def wait_for_ticks(host: Host, node: str, *, more: int = 3) -> None:
    """Wait until the node has received some more ticks."""
    before = seen(host, node).count("tick")

    def ticked() -> bool:
        return seen(host, node).count("tick") >= before + more

    wait_until(ticked, what=lambda: f"ticks; seen: {seen(host, node)[-5:]}")


def forget_ticks(hosts: Hosts) -> None:
    """Remove the files of ticking nodes."""
    for host in hosts:
        for path in host.path("/var/tmp").glob("*.seen"):
            path.unlink()


def daemons() -> dict[str, DaemonSummary]:
    """Connected daemons by machine id; empty without a coordinator."""
    try:
        with CoordinatorClient(endpoint(*current_place(WORKSTATION, DEFAULT_PORT))) as client:
            report = client.request(ClusterStatus())
    except CoordinatorUnavailable:
        return {}
    return {one.machine_id: one for one in report.machines if one.connected and one.machine_id}


def coordinator_process() -> int:
    """Process id of the coordinator that the test has started."""
    mine = f"HOME={os.environ['HOME']}".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            environ = path.with_name("environ").read_bytes().split(b"\0")
            if b"dora_coordinator.command" in path.read_bytes().split(b"\0") and mine in environ:
                return int(path.parent.name)
    raise AssertionError("no coordinator runs")


def dataflows(coordinator: str = WORKSTATION) -> list[DataflowSummary]:
    with CoordinatorClient(endpoint(coordinator)) as client:
        return list(client.request(ListDataflows()).dataflows)


def running() -> list[DataflowSummary]:
    return [one for one in dataflows() if one.status == "Running"]


def ours(host: Host) -> list[str]:
    """Processes of dora on a host, without those that a running daemon keeps ready."""
    found = [line for line in host.processes() if any(word in line for word in OURS)]
    if not any("dora daemon" in line for line in found):
        return found
    return [line for line in found if not any(word in line for word in READY)]


@contextmanager
def ended_cluster(path: Path, *, installed: bool = False) -> Iterator[None]:
    """Bring the cluster down after the block."""
    try:
        yield
    finally:
        if installed:
            run_dora("cluster", "uninstall", path, timeout=90)
        run_dora("cluster", "down", path, timeout=90)
