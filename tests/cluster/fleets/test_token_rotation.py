"""The token of a running cluster is replaced."""

from __future__ import annotations

import ssl
import subprocess

import pytest
from support.dora import run_dora, running_dora
from support.fleets.coordinator import token_file
from support.fleets.daemons import RealFleet, counting, real_fleet
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.access_token import Token

pytestmark = pytest.mark.integration


def status(fleet: RealFleet, token: str) -> int:
    """HTTP status of a request with that token; 404 if it is accepted."""
    headers = {"Authorization": f"Bearer {Token.parse(token).secret}"}
    return fleet.coordinator.request("/api/nothing", headers=headers).status


def other_account(workspace: Workspace, token: str) -> dict[str, str]:
    """Environment of an account with that token and without the files of this account."""
    return {"DORA_AUTH_TOKEN": token, "XDG_CONFIG_HOME": str(workspace.path / "other")}


def test_dataflows_continue_over_rotations_and_restarts(workspace: Workspace) -> None:
    on_a: dict[str, object] = {"machine": "a"}
    with real_fleet(workspace, "a", "b") as fleet:
        dataflow = fleet.start(counting(workspace, counter=on_a, collector=on_a))
        fleet.daemons["b"].interrupt()
        fleet.daemons["b"].wait()
        first = token_file().read_text().strip()
        printed = fleet.dora("cluster", "rotate-token", "--expire-after", "1h")
        assert printed.stdout == (
            "New token sent to 1 connected daemon\nThe old token expires after 1h\n"
        )
        fleet.daemons["a"].wait_for("received the new token of the cluster")
        second = token_file().read_text().strip()
        assert first != second
        assert [status(fleet, one) for one in (first, second, "wrong")] == [404, 404, 401]

        old = other_account(workspace, first)
        words = ("daemon", "--machine-id", "b", "--coordinator-port", str(fleet.port))
        with running_dora(*words, cwd=workspace.path, env=old) as late:
            late.wait_for("received the new token of the cluster")
            late.interrupt()
            late.wait()

        fleet.coordinator.process.interrupt()
        fleet.coordinator.process.wait()
        fleet.restart_coordinator()
        wait_until(lambda: fleet.cluster().machines, what="a to reconnect")
        assert status(fleet, first) == 404
        fleet.dora("cluster", "rotate-token", "--expire-after", "0")
        assert [status(fleet, one) for one in (first, second)] == [401, 401]
        with running_dora(*words, cwd=workspace.path, env=old) as late:
            late.wait_for("has another token than this daemon")
        fleet.wait_for_messages(dataflow)
        fleet.wait_for_status("Running")


def test_a_daemon_with_a_replaced_token_restarts_with_the_new_one(workspace: Workspace) -> None:
    with real_fleet(workspace) as fleet:
        given = other_account(workspace, token_file().read_text().strip())
        words = ("daemon", "--machine-id", "a", "--coordinator-port", str(fleet.port))
        with running_dora(*words, cwd=workspace.path, env=given) as daemon:
            daemon.wait_for("connected to the coordinator")
            fleet.dora("cluster", "rotate-token", "--expire-after", "0")
            daemon.wait_for("received the new token of the cluster")
            daemon.interrupt()
            daemon.wait()
        with running_dora(*words, cwd=workspace.path, env=given) as daemon:
            daemon.wait_for("connected to the coordinator")


def test_a_daemon_with_the_printed_token_of_machines_may_run_no_commands(
    workspace: Workspace,
) -> None:
    with real_fleet(workspace) as fleet:
        token = fleet.dora("cluster", "machine-token").stdout.strip()
        given = other_account(workspace, token)
        words = ("--coordinator-port", str(fleet.port))
        daemon = running_dora("daemon", "--machine-id", "b", *words, cwd=workspace.path, env=given)
        with daemon as running:
            running.wait_for("connected to the coordinator")
            refused = run_dora("list", *words, cwd=workspace.path, env=given)
            assert refused.code == 1
            assert "permits only what its daemon does" in refused.stderr


def test_the_printed_authority_verifies_curl(workspace: Workspace) -> None:
    with real_fleet(workspace) as fleet:
        certificate = fleet.dora("cluster", "ca").stdout
        assert ssl.PEM_cert_to_DER_cert(certificate)
        (workspace.path / "ca.pem").write_text(certificate)
        url = f"https://127.0.0.1:{fleet.port}/api/health"
        words = ["curl", "--silent", "--cacert", str(workspace.path / "ca.pem"), url]
        assert subprocess.run(words, capture_output=True, check=True).stdout == b"ok"
