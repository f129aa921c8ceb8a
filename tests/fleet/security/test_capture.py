"""What a listener on the network of a cluster can read."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.cluster.clusters import cluster_file, ended_cluster
from support.cluster.hosts import Hosts
from support.dora import run_dora
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.access import find_token
from dora_config.access_token import Token

pytestmark = pytest.mark.integration

_ALL_PROTOCOLS = 0x0003
_BUFFER_SIZE = 33
"""SO_RCVBUFFORCE, which `socket` lacks: a size above the limit of the system."""
_CLEAR = b"clear-text-marker"
_PAYLOAD, _LINE, _FILE, _CODE = "payload-marker", "line-marker", "file_marker.py", "code-marker"

SENDER = f"""
    # {_CODE}
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("out", b"{_PAYLOAD}" * 10)
"""

READER = f"""
    import file_marker
    from dora import Node

    for event in Node():
        if event["type"] == "INPUT":
            assert bytes(event["value"].to_pylist()) == b"{_PAYLOAD}" * 10
            print("{_LINE}", flush=True)
"""


@contextmanager
def captured() -> Iterator[bytearray]:
    """Collect all packets between the hosts; the thread must be on their network."""
    packets = bytearray()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, _BUFFER_SIZE, 64 << 20)
        raw.settimeout(0.1)
        ended = threading.Event()

        def collect() -> None:
            while not ended.is_set():
                try:
                    packet, address = raw.recvfrom(1 << 17)
                except TimeoutError:
                    continue
                if address[0] != "lo":
                    packets.extend(packet)

        thread = threading.Thread(target=collect)
        thread.start()
        try:
            yield packets
        finally:
            ended.set()
            thread.join()


@pytest.fixture
def cluster(hosts: Hosts, workstation: Path, tmp_path: Path) -> Iterator[Path]:
    path = cluster_file(hosts, tmp_path)
    with ended_cluster(path):
        yield path
    for host in hosts:
        host.root("rm", "-rf", "/home/ubuntu/_work")


def project(workspace: Workspace) -> Path:
    workspace.file("project/sender.py", SENDER)
    workspace.file("project/reader.py", READER)
    workspace.file(f"project/{_FILE}", f"# {_CODE}\n")
    nodes = [
        {
            "id": "sender",
            "path": "sender.py",
            "inputs": {"tick": "dora/timer/millis/50"},
            "outputs": ["out"],
            "deploy": {"machine": "robot", "distribute": "http"},
        },
        {
            "id": "reader",
            "path": "reader.py",
            "inputs": {"in": "sender/out"},
            "deploy": {"machine": "gpu", "distribute": "http"},
        },
    ]
    return workspace.dataflow({"nodes": nodes}, "project/dataflow.yml")


def test_nothing_of_a_fleet_can_be_read_on_the_network(
    hosts: Hosts, cluster: Path, workspace: Workspace
) -> None:
    with captured() as packets:
        run_dora("cluster", "up", cluster, timeout=90).succeeded()
        started = run_dora("start", project(workspace), "--detach", timeout=90).succeeded()
        uuid = started.stdout.split("dataflow started: ")[1].strip()

        def logs() -> str:
            return run_dora("logs", uuid, "reader", timeout=90).output

        wait_until(lambda: _LINE in logs(), what=logs)
        run_dora("stop", uuid, timeout=90).succeeded()
        hosts["robot"].root(
            "bash", "-c", f"echo {_CLEAR.decode()} > /dev/udp/{hosts['gpu'].address}/9"
        )
        wait_until(lambda: _CLEAR in packets, what="the packet in clear text")
    assert len(packets) > 100_000, "the traffic was captured"
    token = find_token()
    assert token is not None
    secrets = (token, Token.parse(token).secret, _PAYLOAD, _LINE, _FILE, "file_marker", _CODE)
    assert [one for one in secrets if one.encode() in packets] == []
