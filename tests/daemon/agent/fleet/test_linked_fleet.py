"""Data between real daemons during faults, and the status in the list."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from support.fleets.cables import cable, require_networks
from support.fleets.daemons import (
    COLLECTOR,
    COUNTER,
    RealFleet,
    is_running,
    pids,
    real_fleet,
)
from support.fleets.linked_fleet import (
    ROBOT,
    STATION,
    complete,
    crossing,
    link_of,
    links,
    runner_of,
    wait_until_connected,
)
from support.runner.found_runners import list_runners
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.access import state_dir
from dora_daemon.process_tree.runtime_dir import runtime_root

pytestmark = pytest.mark.integration

MACHINES = ("robot", "station")

INFERENCE = """
    import os
    from pathlib import Path
    from dora import Node

    node = Node()
    with Path("pids").open("a") as file:
        print(os.getpid(), file=file)
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("boxes", event["value"], event["metadata"])
"""


@pytest.mark.dependencies
def test_three_machines_in_a_row(workspace: Workspace) -> None:
    """camera -> inference -> actuator, each on its own machine."""
    workspace.node("counter", COUNTER)
    workspace.node("inference", INFERENCE)
    workspace.node("collector", COLLECTOR)
    lossless = {"queue_size": 100, "queue_policy": "backpressure"}
    flow = workspace.dataflow(
        {
            "nodes": [
                {
                    "id": "camera",
                    "path": "counter.py",
                    "deploy": ROBOT,
                    "inputs": {"tick": "dora/timer/millis/20"},
                    "outputs": ["count"],
                },
                {
                    "id": "inference",
                    "path": "inference.py",
                    "deploy": STATION,
                    "inputs": {"image": {"source": "camera/count", **lossless}},
                    "outputs": ["boxes"],
                },
                {
                    "id": "collector",
                    "path": "collector.py",
                    "deploy": {"labels": {"arm": "left"}},
                    "inputs": {"boxes": {"source": "inference/boxes", **lossless}},
                },
            ]
        }
    )
    with real_fleet(workspace, "robot", "station") as fleet:
        fleet.start_daemon("arm", "--labels", "arm=left")
        uuid = fleet.start(flow)
        fleet.wait_for_status("Running")
        fleet.wait_for_messages(uuid)
        wait_until_connected(fleet, 4)
        links = [link for one in fleet.cluster().machines for link in one.links]
        assert len(links) == 4
        assert all(link.rtt_us is not None for link in links)
        fleet.dora("stop")
        complete(fleet, uuid)
        assert fleet.listed()[-1].status == "Finished"
        assert "event STOP" in fleet.dora("logs", uuid, "--node", "collector").stdout
        wait_until(lambda: not any(map(is_running, pids(workspace))), what="all nodes to end")


def test_messages_flow_on_without_coordinator_and_daemons(workspace: Workspace) -> None:
    """The fault table has the other processes, and machines that are switched off."""
    with real_fleet(workspace, "robot", "station") as fleet:
        uuid = fleet.start(crossing(workspace))
        fleet.wait_for_messages(uuid)
        nodes = pids(workspace)
        for take_away in (_coordinator_away, _daemons_away, _all_away):
            take_away(fleet, uuid)
            fleet.wait_for_status("Running")
            wait_until_connected(fleet)
            fleet.wait_for_messages(uuid)
            assert pids(workspace) == nodes
            complete(fleet, uuid)


def _coordinator_away(fleet: RealFleet, uuid: str) -> None:
    fleet.coordinator.process.kill()
    fleet.wait_for_messages(uuid, 50)
    fleet.restart_coordinator()


def _daemons_away(fleet: RealFleet, uuid: str) -> None:
    for machine in MACHINES:
        runner = runner_of(machine)
        fleet.daemons[machine].kill()
        fleet.wait_for_status("Degraded")
        fleet.wait_for_messages(uuid, 50)
        fleet.start_daemon(machine)
        fleet.wait_for_status("Running")
        assert runner_of(machine) == runner


def _all_away(fleet: RealFleet, uuid: str) -> None:
    fleet.coordinator.process.kill()
    for machine in MACHINES:
        fleet.daemons[machine].kill()
    fleet.wait_for_messages(uuid, 50)
    for machine in MACHINES:
        fleet.start_daemon(machine, wait=False)
    fleet.restart_coordinator()


def kill_link(machine: str) -> None:
    old = link_of(machine)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: not is_running(old), what="the link to end")


def test_machines_that_have_ipv6_addresses_alone(workspace: Workspace) -> None:
    require_networks(ipv6=True)
    with (
        cable("robot", "station", ipv6=True) as wire,
        wire.at("robot"),
        real_fleet(workspace, settings=("--interface", "::")) as fleet,
    ):
        to_coordinator = ("--coordinator-addr", wire.addresses["robot"])
        fleet.start_daemon("robot")  # the machine's address is found from its peers
        with wire.at("station"):
            fleet.start_daemon("station", *to_coordinator)
        uuid = fleet.start(crossing(workspace))
        wait_until_connected(fleet)
        fleet.wait_for_messages(uuid)
        found = {link.peer: link.endpoint for link in links(fleet)}
        assert found == {name: f"[{wire.addresses[name]}]:7450" for name in ("robot", "station")}
        (station,) = [one for one in fleet.cluster().machines if one.daemon == "station"]
        assert station.address.startswith(f"[{wire.addresses['station']}]:")
        fleet.dora("stop")


def test_a_daemon_that_is_stopped_ends_its_dataflows_on_all_machines(workspace: Workspace) -> None:
    with real_fleet(workspace, "robot", "station") as fleet:
        uuid = fleet.start(crossing(workspace))
        fleet.wait_for_messages(uuid)
        daemon = fleet.daemons["robot"]
        daemon.send_signal(signal.SIGINT)
        done = daemon.wait(timeout=20).succeeded()
        assert f"dataflow {uuid} also ends on its other machines" in done.stderr
        row = fleet.wait_for_status("Finished")
        assert row.reason == 'daemon "robot" was stopped'
        assert not any(map(is_running, pids(workspace)))
        assert 'is stopped: daemon "robot" was stopped' in fleet.coordinator.process.stderr
        fleet.start_daemon("robot")
        assert fleet.listed()[-1].status == "Finished"


def test_a_dataflow_ends_over_all_machines(workspace: Workspace) -> None:
    workspace.node("ten", TEN)
    workspace.node("collector", COLLECTOR)
    flow = workspace.dataflow(
        {
            "nodes": [
                {"id": "ten", "path": "ten.py", "outputs": ["count"], "deploy": ROBOT},
                {
                    "id": "collector",
                    "path": "collector.py",
                    "deploy": STATION,
                    "inputs": {
                        "count": {
                            "source": "ten/count",
                            "queue_size": 2,
                            "queue_policy": "backpressure",
                        }
                    },
                },
            ]
        }
    )
    with real_fleet(workspace, "robot", "station") as fleet:
        uuid = fleet.start(flow)
        fleet.wait_for_status("Finished")
        assert fleet.messages(uuid) == list(range(10))


TEN = """
    from dora import Node

    node = Node()
    for count in range(10):
        node.send_output("count", bytes(count.to_bytes(8, "little")))
"""


def test_a_machine_without_a_free_port_fails_the_start(workspace: Workspace) -> None:
    with real_fleet(workspace, "station") as fleet:
        taken = fleet.port  # the coordinator listens there
        fleet.start_daemon("robot", "--zenoh-listen", f"127.0.0.1:{taken}-{taken}")
        done = fleet.dora("start", crossing(workspace), "--detach", code=1)
        assert 'daemon "robot" cannot listen for links' in done.stderr
        assert str(taken) in done.stderr
        wait_until(lambda: not list_runners(runtime_root()), what="the roll-back")
        assert fleet.listed()[-1].status == "Failed"


def test_a_new_authority_reaches_links_that_run(workspace: Workspace) -> None:
    """The coordinator's state was deleted: links continue, and later use new certificates."""
    with real_fleet(workspace, "robot", "station") as fleet:
        uuid = fleet.start(crossing(workspace))
        fleet.wait_for_messages(uuid)
        trusted = state_dir() / "daemon" / "robot" / "credentials" / "ca.pem"
        before = trusted.read_text()
        fleet.coordinator.process.kill()
        shutil.rmtree(state_dir() / "coordinator")
        fleet.restart_coordinator()
        wait_until(lambda: trusted.read_text() != before, what="new certificates")
        fleet.wait_for_status("Running")
        fleet.wait_for_messages(uuid)
        for machine in MACHINES:
            kill_link(machine)
            fleet.wait_for_messages(uuid, 50)
            wait_until_connected(fleet)


def test_lines_of_a_link_are_in_the_log_of_the_dataflow(workspace: Workspace) -> None:
    workspace.node(
        "camera",
        """
        from dora import Node

        node = Node()
        for event in node:
            if event["type"] == "INPUT":
                node.send_output("image", bytes(300_000))
        """,
    )
    workspace.node(
        "plot",
        """
        from dora import Node

        for event in Node():
            if event["type"] == "INPUT":
                print("got", len(event["value"]), flush=True)
        """,
    )
    timer = {"tick": "dora/timer/millis/100"}
    image = {"image": {"source": "camera/image", "compress": "jpeg"}}
    flow = workspace.dataflow(
        {
            "nodes": [
                {"id": "camera", "path": "camera.py", "deploy": ROBOT, "inputs": timer}
                | {"outputs": ["image"]},
                {"id": "collector", "path": "plot.py", "deploy": STATION, "inputs": image},
            ]
        }
    )
    line = "WARN   [dora]: camera/image: messages cross uncompressed (jpeg): its metadata has no"
    with real_fleet(workspace, "robot", "station") as fleet:
        uuid = fleet.start(flow)
        fleet.wait_for_messages(uuid, more=1)
        assert line in fleet.dora("logs", uuid).stdout
        assert line in fleet.dora("logs", uuid, "--local").stdout
        assert line not in fleet.dora("logs", uuid, "--node", "camera").stdout
        fleet.dora("stop", uuid)
        assert line in fleet.dora("logs", uuid).stdout
