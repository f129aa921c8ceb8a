"""Machines whose clocks are years off: they join, and status and doctor show the offset."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from support.cluster.clusters import (
    cluster_file,
    daemons,
    dataflows,
    ended_cluster,
    forget_ticks,
    put_script,
    seen,
)
from support.cluster.host_clocks import give_clock, set_clock, take_clock
from support.cluster.hosts import Hosts
from support.dora import run_dora
from support.waiting import wait_until

pytestmark = pytest.mark.integration

DAY = 24 * 3600.0
FROM_1970 = -20_700 * DAY
"""In 1970, like the clock of a robot without a battery."""
IN_2099 = 26_500 * DAY
SENDER = """
import pyarrow as pa
from dora import Node

node = Node()
for event in node:
    if event["type"] == "INPUT":
        node.send_output("tick", pa.array([1]))
        print("sent", flush=True)
"""
RECEIVER = """
import pathlib
from dora import Node

with pathlib.Path("/var/tmp/receiver.seen").open("a") as seen:
    for event in Node():
        if event["type"] == "INPUT":
            print("tick", file=seen, flush=True)
"""
FLOW = """\
nodes:
  - id: sender
    path: /home/ubuntu/sender.py
    deploy: {machine: robot}
    inputs: {tick: dora/timer/millis/50}
    outputs: [tick]
  - id: receiver
    path: /home/ubuntu/receiver.py
    deploy: {machine: gpu}
    inputs: {tick: sender/tick}
"""


@pytest.fixture
def cluster(hosts: Hosts, workstation: Path, tmp_path: Path) -> Iterator[Path]:
    forget_ticks(hosts)
    try:
        for host in hosts:
            give_clock(host)
            set_clock(host, 0)
        path = cluster_file(hosts, tmp_path)
        with ended_cluster(path):
            yield path
    finally:
        for host in hosts:
            take_clock(host)


def start(hosts: Hosts, folder: Path) -> None:
    """Start a dataflow on two machines."""
    for name, node, text in (("robot", "sender", SENDER), ("gpu", "receiver", RECEIVER)):
        put_script(hosts[name], f"{node}.py", text)
    path = folder / "flow.yml"
    path.write_text(FLOW)
    run_dora("start", path, "--name", "flow", "--detach").succeeded()


def wait_for_messages(hosts: Hosts) -> None:
    """Wait until more messages have arrived over the link."""
    before = len(seen(hosts["gpu"], "receiver"))
    wait_until(lambda: len(seen(hosts["gpu"], "receiver")) > before + 5, what="messages")


def link_offsets() -> dict[str, float]:
    """Clock offset of the other machine, as each machine measures it."""
    return {
        link.machine: link.clock_offset_us / 1e6
        for one in dataflows()
        for link in one.links
        if link.clock_offset_us is not None
    }


@pytest.mark.parametrize(
    ("offset", "shown"), [(FROM_1970, "-56.7 years"), (IN_2099, "+72.6 years")]
)
def test_machine_with_a_wrong_clock_joins(
    hosts: Hosts, cluster: Path, tmp_path: Path, offset: float, shown: str
) -> None:
    set_clock(hosts["robot"], offset)
    done = run_dora("cluster", "up", cluster).succeeded()
    manner = f"{shown[1:]} {'ahead of' if offset > 0 else 'behind'} "
    assert f"robot (ubuntu@10.77.0.2): its clock is {manner}this machine's" in done.stderr
    start(hosts, tmp_path)
    wait_for_messages(hosts)
    status = run_dora("cluster", "status").succeeded()
    assert re.search(rf"^robot .* {re.escape(shown)} ", status.stdout, re.MULTILINE)
    assert f'"robot": its clock is {manner}the coordinator\'s' in status.stderr
    assert '"gpu"' not in status.stderr
    assert f'"robot": its clock is {manner}' in run_dora("status").succeeded().stderr
    report = run_dora("cluster", "doctor", cluster).exited(1).stdout
    assert f"- robot (ubuntu@10.77.0.2): its clock is {manner}this machine's" in report
    assert "timedatectl set-ntp true" in report
    assert "firewall" not in report


def test_corrected_clock_is_measured_soon(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    set_clock(hosts["robot"], FROM_1970)
    run_dora("cluster", "up", cluster).succeeded()
    start(hosts, tmp_path)
    wait_for_messages(hosts)
    wait_until(lambda: len(link_offsets()) == 2, what="both ends of the link")
    assert link_offsets()["robot"] > 50 * 365 * DAY
    assert link_offsets()["gpu"] < -50 * 365 * DAY
    set_clock(hosts["robot"], 0)
    begin = time.monotonic()

    def right() -> bool:
        machines = daemons().values()
        offsets = [*link_offsets().values(), *(one.clock_offset or 0.0 for one in machines)]
        return all(abs(offset) < 1 for offset in offsets)

    wait_until(right, what=lambda: f"offsets near zero: {link_offsets()}")
    assert time.monotonic() - begin < 15
    wait_for_messages(hosts)
    (flow,) = dataflows()
    assert flow.status == "Running"
    for link in flow.links:
        assert link.rtt_us is not None
        assert link.rtt_us < 1_000_000
    assert all(one.heartbeat_age < 10 for one in daemons().values())
    words = ("logs", "flow", "--node", "sender", "--since", "5s", "--log-format", "json")
    logs = run_dora(*words).succeeded()
    times = [datetime.fromisoformat(json.loads(x)["ts"]) for x in logs.stdout.splitlines()]
    assert times
    assert all(abs(one.timestamp() - time.time()) < 60 for one in times)
