"""Messages between real machines: firewalls, cables, power cuts, reboots."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.clusters import (
    coordinator_process,
    daemons,
    dataflows,
    forget_ticks,
    put_script,
)
from support.cluster.hosts import Host, Hosts
from support.dora import DORA, run_dora
from support.waiting import PATIENCE, let_last, wait_until

pytestmark = pytest.mark.integration

SOURCE = """
from dora import Node

node = Node()
count = 0
for event in node:
    if event["type"] == "INPUT":
        node.send_output("count", bytes(count.to_bytes(8, "little")))
        count += 1
"""

SINK = """
import pathlib
from dora import Node

node = Node()
with pathlib.Path("/var/tmp/sink.seen").open("a") as seen:
    for event in node:
        if event["type"] == "INPUT":
            number = int.from_bytes(bytes(event["value"].to_pylist()), "little")
            print(number, file=seen, flush=True)
        else:
            print(event["type"], file=seen, flush=True)
"""

FLOW = """
nodes:
  - id: source
    path: /home/ubuntu/source.py
    deploy: {machine: robot}
    inputs: {tick: dora/timer/millis/20}
    outputs: [count]
  - id: sink
    path: /home/ubuntu/sink.py
    deploy: {machine: gpu}
    inputs:
      count: {source: source/count, queue_size: 100, queue_policy: backpressure}
"""


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def cluster(hosts: Hosts, cluster_yml: Path) -> None:
    """A coordinator, and daemons as services on both hosts."""
    for name, text in (("source", SOURCE), ("sink", SINK)):
        for host in hosts:
            put_script(host, f"{name}.py", text)
    run_dora("cluster", "install", cluster_yml).succeeded()
    run_dora("cluster", "up", cluster_yml).succeeded()


@pytest.fixture
def flow(hosts: Hosts, cluster: None, tmp_path: Path) -> Iterator[Path]:
    """The file of the dataflow; the test starts it, and the fixture ends it."""
    forget_ticks(hosts)
    wait_until(lambda: len(daemons()) == 2, what="both daemons")
    path = tmp_path / "flow.yml"
    path.write_text(FLOW)
    try:
        yield path
    finally:
        hosts.heal()
        run_dora("stop").succeeded()


def seen(gpu: Host) -> list[str]:
    path = gpu.path("/var/tmp/sink.seen")
    return path.read_text().split() if path.exists() else []


def wait_for_more(hosts: Hosts, more: int = 10, *, timeout: float = PATIENCE) -> None:
    before = len(seen(hosts["gpu"]))
    wait_until(
        lambda: len(seen(hosts["gpu"])) >= before + more,
        timeout=timeout,
        what=lambda: f"messages; {seen(hosts['gpu'])[-3:]}; {dataflows()}",
    )


def require_complete(hosts: Hosts) -> None:
    got = seen(hosts["gpu"])
    assert got == [str(number) for number in range(len(got))]


def wait_for_status(status: str, *, timeout: float = PATIENCE) -> None:
    wait_until(
        lambda: dataflows()[-1].status == status,
        timeout=timeout,
        what=lambda: f"{status}; it is {dataflows()[-1]}",
    )


def test_machines_that_cannot_reach_each_other_are_named(hosts: Hosts, flow: Path) -> None:
    """The coordinator reaches both machines, but they do not reach each other."""
    hosts.partition("robot", "gpu")
    failed = run_dora("start", flow, "--detach").exited(1).stderr
    assert '"gpu" and "robot" cannot reach each other' in failed
    for host in hosts:
        assert f" tried {host.address}:7450 (" in failed
    assert "open one of these TCP ports" in failed
    assert dataflows()[-1].status == "Failed"
    started = run_dora("start", flow, "--detach", "--allow-unlinked").succeeded()
    assert "cannot reach each other" in started.stderr
    assert dataflows()[-1].status == "Degraded"
    hosts.heal()
    wait_for_status("Running")
    wait_for_more(hosts)


def test_cable_is_out_for_five_seconds(hosts: Hosts, flow: Path) -> None:
    run_dora("start", flow, "--detach").succeeded()
    wait_for_more(hosts)
    hosts["robot"].cut()
    let_last(5)
    hosts["robot"].mend()
    wait_for_more(hosts, 300)
    wait_for_status("Running")
    require_complete(hosts)


def test_power_cut(hosts: Hosts, flow: Path) -> None:
    run_dora("start", flow, "--detach").succeeded()
    for host in hosts:
        wait_for_more(hosts)
        host.reboot()
        wait_for_status("Running")
    wait_for_more(hosts)


def test_power_cut_while_the_coordinator_is_away(
    hosts: Hosts, flow: Path, cluster_yml: Path
) -> None:
    """Both machines start alone, link, and are adopted when the coordinator is back."""
    run_dora("start", flow, "--detach").succeeded()
    wait_for_more(hosts)
    os.kill(coordinator_process(), signal.SIGKILL)
    for host in hosts:
        host.power_off()
    for host in hosts:
        host.boot()
    wait_for_more(hosts, timeout=2 * PATIENCE)
    before = nodes(hosts)
    assert all(before.values())
    listed = hosts["robot"].root(DORA, "list", user="ubuntu")
    assert "Running" in listed.stdout
    assert "this is about this machine only" in listed.stderr
    run_dora("cluster", "up", cluster_yml).succeeded()
    wait_for_status("Running")
    wait_for_more(hosts)
    assert nodes(hosts) == before
    got = seen(hosts["gpu"])
    last = got[len(got) - got[::-1].index("0") - 1 :]  # since the source was started again
    assert last == [str(number) for number in range(len(last))]


def nodes(hosts: Hosts) -> dict[str, str]:
    """Process ids of the nodes on each host."""
    found = {"robot": "source.py", "gpu": "sink.py"}
    return {
        name: hosts[name].root("pgrep", "-f", script, check=False).stdout
        for name, script in found.items()
    }


def test_machines_are_rebooted(hosts: Hosts, flow: Path) -> None:
    """systemd stops the daemon's unit, which must not end the dataflow."""
    run_dora("start", flow, "--detach").succeeded()
    for host in hosts:
        wait_for_more(hosts)
        boot = host.boot_id()
        host.root("systemctl", "reboot", check=False)
        wait_until(lambda: host.boot_id() not in ("", boot), what="the next boot")  # noqa: B023
        wait_for_status("Running")
    wait_for_more(hosts)
    got = seen(hosts["gpu"])
    assert "INPUT_CLOSED" not in got, "the source must come back"
    assert got.count("STOP") == 1, "nodes are stopped when their machine shuts down"
