"""Machines that are removed from a cluster, and certificates that name their machine."""

from __future__ import annotations

import os
import signal
from shutil import rmtree

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from support.fleets.daemons import RealFleet, real_fleet
from support.fleets.linked_fleet import crossing, wait_until_connected
from support.waiting import wait_until
from support.workspace import Workspace

from dora_cli.coordinator.client import CoordinatorClient
from dora_config.access import state_dir
from dora_config.protocol.control import RemoveMachines

pytestmark = pytest.mark.integration


def remove(fleet: RealFleet, *machines: str) -> tuple[str, ...]:
    with CoordinatorClient(fleet.coordinator.endpoint) as client:
        return client.request(RemoveMachines(machines=machines)).machines


def test_a_certificate_names_its_machine(workspace: Workspace) -> None:
    with real_fleet(workspace, "robot"):
        path = state_dir() / "daemon" / "robot" / "credentials" / "cert.pem"
        wait_until(path.exists, what="a certificate")
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert str(name.value).startswith("robot:")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["dora:machine:robot"]


def test_a_machine_that_cannot_be_reached_is_removed(workspace: Workspace) -> None:
    with real_fleet(workspace, "robot", "station") as fleet:
        dataflow = fleet.start(crossing(workspace))
        wait_until_connected(fleet)
        fleet.wait_for_messages(dataflow)
        robot = fleet.daemons["robot"]
        os.kill(robot.pid, signal.SIGSTOP)
        try:
            assert remove(fleet, "robot", "unknown") == ("robot",)
            fleet.wait_for_status("Finished")
            assert remove(fleet, "robot") == ()
        finally:
            os.kill(robot.pid, signal.SIGCONT)
        robot.wait_for("its key was removed from the cluster with `dora cluster remove`")
        robot.interrupt()
        robot.wait()
        fleet.coordinator.process.interrupt()
        fleet.coordinator.process.wait()
        fleet.restart_coordinator()
        again = fleet.start_daemon("robot", wait=False)
        again.wait_for("its key was removed from the cluster")
        again.interrupt()
        again.wait()
        rmtree(state_dir() / "daemon" / "robot")
        fleet.start_daemon("robot")
