"""What one compromised robot can do to a fleet: a test for each row of the table in security.md."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.claims import forged
from support.fleets.daemons import RealFleet, real_fleet
from support.fleets.hostile_machine import hostile_machine
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.access import state_dir
from dora_config.protocol.claims import Signature
from dora_config.protocol.daemon import Registered, RegistrationRefused
from dora_daemon.agent.coordinator_access import KnownCoordinators

pytestmark = pytest.mark.integration

EPOCH = 1 << 62


@pytest.fixture
def fleet(workspace: Workspace) -> Iterator[RealFleet]:
    with real_fleet(workspace, "base", settings=("--set", "heartbeat_interval=0.5")) as made:
        yield made


def cluster_of(fleet: RealFleet) -> str:
    """Return the hash of the cluster's authority, which the token names."""
    authority = fleet.coordinator.endpoint.authority
    assert authority is not None
    return authority.hex()


def leads(fleet: RealFleet) -> bool:
    """Return whether the coordinator leads its daemon and accepts changes."""
    done = fleet.dora("clean")
    daemons = fleet.cluster().machines
    return "replaced" not in done.output and any(
        one.connected and one.daemon == "base" for one in daemons
    )


def test_a_forged_epoch_is_ignored_from_any_key(fleet: RealFleet, tmp_path: Path) -> None:
    """Also from one that is not enrolled, and with the signature of a real claim."""
    real = fleet.cluster().claim
    assert real is not None
    claim = forged(cluster_of(fleet), EPOCH)
    for number, one in enumerate(
        (
            claim,
            claim.model_copy(update={"proof": Signature()}),
            claim.model_copy(update={"proof": real.proof}),
            real.model_copy(update={"epoch": EPOCH}),
            real.model_copy(update={"address": "10.0.0.66:6013", "machine": "robot"}),
        )
    ):
        with hostile_machine(fleet.coordinator, tmp_path / "robot", claim=one) as robot:
            assert isinstance(robot.answer, Registered), "a damaged file excludes no machine"
            assert robot.answer.coordinators.claim == real
        with hostile_machine(fleet.coordinator, tmp_path / str(number), "base", claim=one) as other:
            assert isinstance(other.answer, RegistrationRefused)
            assert other.answer.claim is None
    log = fleet.coordinator.process.stderr
    assert (
        f'ignored a claim of daemon "robot" for the coordinator at 10.0.0.66:6013 (epoch {EPOCH}'
        in log
    )
    assert 'signed by "robot"' in log
    assert leads(fleet)
    fleet.coordinator.process.kill()
    fleet.restart_coordinator()
    wait_until(lambda: leads(fleet), what="the daemon to follow the restarted coordinator")


def test_a_forged_file_of_a_daemon_changes_nothing(fleet: RealFleet) -> None:
    cluster = cluster_of(fleet)
    path = state_dir() / "daemon" / "base" / "coordinators.json"
    wait_until(path.exists, what="the claim of the coordinator")
    known = KnownCoordinators(authority=cluster, claim=forged(cluster, EPOCH))
    path.write_text(known.model_dump_json())
    daemon = fleet.daemons["base"]
    daemon.send_signal(signal.SIGUSR2)
    daemon.wait()
    path.write_text(known.model_dump_json())
    again = fleet.start_daemon("base")
    again.wait_for("coordinators.json: ignored the coordinator at 10.0.0.66:6013")
    assert leads(fleet)
