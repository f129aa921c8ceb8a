"""The coordinator is lost with its disk, and one on a standby takes over with a copy."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from support.claims import forged, signed
from support.dora import run_dora, running_dora
from support.fleets.coordinator import RunningCoordinator, running_coordinator, token_file
from support.fleets.daemons import counting, is_running, pids, real_fleet, wait_for_pids
from support.waiting import wait_until
from support.workspace import Workspace

from dora_cli.coordinator.client import CoordinatorClient
from dora_config.access import Endpoint, state_dir
from dora_config.protocol.control import (
    ClusterReport,
    ClusterStatus,
    Destroy,
    ListDataflows,
    SetStandbys,
    Standby,
)
from dora_coordinator.io.authority import Authority
from dora_coordinator.io.succession import present_copy, show_claim

pytestmark = pytest.mark.integration


def ask(at: Endpoint) -> ClusterReport:
    with CoordinatorClient(at) as client:
        return client.request(ClusterStatus())


def copy_of(machine: str) -> Path:
    return state_dir() / "daemon" / machine / "coordinator-copy.json"


def restore(machine: str, *, epoch: int, address: str, port: int, token: str, code: int = 0) -> str:
    """Put the copy of a machine in the place of the coordinator's folder of this account."""
    given = {
        "token": token,
        "state": json.loads(copy_of(machine).read_text()),
        "epoch": epoch,
        "machine": machine,
        "address": address,
    }
    words = ("coordinator", "--restore", "--port", str(port))
    return run_dora(*words, stdin=json.dumps(given)).exited(code).output


def test_a_standby_takes_over(workspace: Workspace, tmp_path: Path) -> None:
    on_a: dict[str, object] = {"machine": "a"}
    with real_fleet(workspace, "a", "base", settings=("--set", "heartbeat_interval=0.5")) as fleet:
        old, new = f"127.0.0.1:{fleet.port}", f"127.0.0.2:{fleet.port}"
        with CoordinatorClient(fleet.coordinator.endpoint) as client:
            standbys = (Standby(machine="base", address=new),)
            client.request(SetStandbys(address=old, standbys=standbys))
        dataflow = fleet.start(counting(workspace, counter=on_a, collector=on_a))
        nodes = wait_for_pids(workspace, 2)
        wait_until(lambda: fleet.cluster().standbys[0].current, what="the copy of the last change")
        assert stat.S_IMODE(copy_of("base").stat().st_mode) == 0o600
        token = token_file().read_text().strip()
        content = copy_of("base").read_text()
        assert token not in content
        assert "PRIVATE" not in content

        fleet.coordinator.process.kill()
        elsewhere = tmp_path / "old" / "dora"
        elsewhere.mkdir(parents=True)
        (state_dir() / "coordinator").rename(elsewhere / "coordinator")
        wrong = restore("base", epoch=2, address=new, port=fleet.port, token="wrong", code=1)
        assert "encrypted with another token than the given one" in wrong
        assert not (state_dir() / "coordinator").exists()
        printed = restore("base", epoch=2, address=new, port=fleet.port, token=token)
        assert json.loads(printed)["dataflows"] == 1
        place = ("--interface", "127.0.0.2", *fleet.settings)
        with running_coordinator(*place, port=fleet.port, cwd=workspace.path) as taken:
            at = Endpoint("127.0.0.2", fleet.port, token)
            wait_until(
                lambda: sum(one.connected for one in ask(at).machines) == 2,
                what="the daemons to follow",
            )
            claim = ask(at).claim
            assert claim is not None
            assert claim.rank == (2, "base")
            with CoordinatorClient(at) as client:
                (one,) = client.request(ListDataflows()).dataflows
            assert (one.uuid, one.status) == (dataflow, "Running")
            assert all(map(is_running, nodes))
            assert pids(workspace)[-2:] == nodes
            _check_old_coordinator(workspace, taken, new, elsewhere.parent)
            there = ("--coordinator-addr", "127.0.0.2", "--coordinator-port", str(fleet.port))
            run_dora("stop", dataflow, *there, cwd=workspace.path).succeeded()
            path = workspace.path / "dataflow.yml"
            run_dora("start", path, "--detach", *there, cwd=workspace.path).succeeded()
            wait_for_pids(workspace, 4)
            run_dora("stop", *there, cwd=workspace.path).succeeded()


def _check_old_coordinator(
    workspace: Workspace, taken: RunningCoordinator, new: str, state: Path
) -> None:
    """The old one returns: it learns of its successor, changes nothing, and can be ended."""
    env = {"XDG_STATE_HOME": str(state)}
    words = ("coordinator", "--port", str(taken.port))
    here = ("--coordinator-port", str(taken.port))
    with running_dora(*words, cwd=workspace.path, env=env) as returned:
        returned.wait_for(f"replaced by the one at {new} (epoch 2)")
        listed = run_dora("list", *here, cwd=workspace.path).succeeded()
        assert new in listed.stderr
        path = workspace.path / "dataflow.yml"
        refused = run_dora("start", path, "--detach", *here, cwd=workspace.path).exited(1)
        assert f"replaced by the one at {new}" in refused.stderr
        record = json.loads(
            Path(state, "dora", "coordinator", f"succession-{taken.port}.json").read_text()
        )
        assert record["successor"]["epoch"] == 2
        run_dora("down", *here, cwd=workspace.path)
        assert returned.wait().code == 0


def test_a_coordinator_is_shown_its_successor_and_gives_its_state(workspace: Workspace) -> None:
    """As `promote` does it while the coordinator answers."""
    with real_fleet(workspace, "base") as fleet:
        at = fleet.coordinator.endpoint
        assert at.authority is not None
        cluster = at.authority.hex()
        copy = present_copy(at)
        assert copy is not None
        assert copy.authority == cluster
        claim = ask(at).claim
        assert show_claim(at, forged(cluster)) == claim, "what is not signed is ignored"
        assert fleet.coordinator.request("/api/succession", method="POST", body=b"{").status == 422
        large = b" " * (1 << 17)
        assert fleet.coordinator.request("/api/succession", method="POST", body=large).status == 413
        authority = Authority(state_dir() / "coordinator" / "authority")
        successor = signed(authority, 2, "base", "10.0.0.2:6013")
        assert show_claim(at, successor) == successor
        assert present_copy(at) is None
        with CoordinatorClient(at) as client:
            wait_until(lambda: successor_of(client) is not None, what="the coordinator to stand")
            client.request(Destroy(force=True))
        assert fleet.coordinator.process.wait().code == 0
        log = fleet.coordinator.process.stderr
        assert "ignored a claim of a client at 127.0.0.1 for the coordinator at 10.0.0.66" in log
        assert "has sent the claim of the coordinator at 10.0.0.2:6013 (epoch 2, signed by" in log
        daemon = fleet.daemons["base"]
        assert daemon.process.poll() is None, "the daemon runs on"


def successor_of(client: CoordinatorClient) -> str | None:
    client.request(ClusterStatus())
    return client.successor
