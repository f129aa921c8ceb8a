"""What one compromised robot can do to a fleet: a test for each row of the table in security.md."""

from __future__ import annotations

import hashlib
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from support.claims import forged
from support.dora import run_dora
from support.fleets.daemons import (
    RealFleet,
    counting,
    is_running,
    pids,
    real_fleet,
    wait_for_pids,
)
from support.fleets.hostile_machine import hostile_machine
from support.waiting import wait_until
from support.workspace import Workspace
from websockets.exceptions import InvalidStatus

from dora_cli.coordinator.client import CoordinatorClient
from dora_config.access import TOKEN_VARIABLE, state_dir
from dora_config.access_token import Token
from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedNode
from dora_config.protocol.claims import Signature
from dora_config.protocol.code import file_path
from dora_config.protocol.control import RotateToken, SetStandbys, Standby
from dora_config.protocol.daemon import (
    Certificate,
    CoordinatorCopy,
    CopyKept,
    Heartbeat,
    Metrics,
    PartChanged,
    PartDescribed,
    PartLost,
    PartReport,
    PreparePart,
    Registered,
    RegistrationRefused,
    SignRequest,
    StopPart,
)
from dora_config.protocol.dataflow import DataflowSpec, StartIdentity, WholeDataflow, pack
from dora_config.protocol.runner import DataflowResult
from dora_config.protocol.states import NodeStatus
from dora_daemon.agent.coordinator_access import KnownCoordinators
from dora_daemon.agent.credentials import Credentials

pytestmark = pytest.mark.integration

EPOCH = 1 << 62
FUTURE = StartIdentity(time=1e12, epoch=EPOCH, number=EPOCH)
ON_BASE: dict[str, object] = {"machine": "base"}


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
    return "replaced" not in done.output and connected(fleet, "base")


def connected(fleet: RealFleet, machine: str) -> bool:
    return any(one.connected and one.daemon == machine for one in fleet.cluster().machines)


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


def test_ends_of_parts_elsewhere_are_ignored(
    fleet: RealFleet, workspace: Workspace, tmp_path: Path
) -> None:
    dataflow = fleet.start(counting(workspace, counter=ON_BASE, collector=ON_BASE))
    nodes = wait_for_pids(workspace, 2)
    result = DataflowResult(dataflow_id=dataflow)
    ended = PartReport(
        dataflow_id=dataflow, attempt=1 << 62, phase="ended", result=result, stopped=True
    )
    with hostile_machine(fleet.coordinator, tmp_path / "robot", ends=(ended,)) as robot:
        robot.send(PartChanged(report=ended))
        robot.send(PartLost(dataflow_id=dataflow, attempt=1 << 62, reason="gone", result=result))
        answers = robot.until_handled()
        assert not any(isinstance(one, StopPart | PreparePart) for one in answers)
    assert fleet.wait_for_status("Running").uuid == dataflow
    fleet.wait_for_messages(dataflow)
    assert pids(workspace) == nodes
    assert all(map(is_running, nodes))


def test_a_machine_shows_what_it_likes_of_its_own_nodes(
    fleet: RealFleet, workspace: Workspace, tmp_path: Path
) -> None:
    """A dataflow of its own invention with a failed node; what runs elsewhere stays as it is."""
    dataflow = fleet.start(counting(workspace, counter=ON_BASE, collector=ON_BASE))
    nodes = wait_for_pids(workspace, 2)
    invented = str(uuid.uuid4())
    own = PartReport(dataflow_id=invented, attempt=1, phase="running", name="ghost")
    with hostile_machine(fleet.coordinator, tmp_path / "robot", parts=(own,)) as robot:
        robot.send(described(invented, "phantom", name="ghost"))
        robot.send(PartChanged(report=own))
        failed = NodeStatus(node="phantom", status="Failed", error="invented")
        of_others = NodeStatus(node="counter", status="Failed", error="invented")
        robot.send(
            Heartbeat(
                parts=(own,),
                metrics=(
                    Metrics(dataflow_id=invented, nodes=(failed,)),
                    Metrics(dataflow_id=dataflow, nodes=(of_others,)),
                ),
            )
        )

        def shows_it() -> bool:
            (ghost,) = [one for one in fleet.listed() if one.name == "ghost"]
            failure = 'node "phantom" has failed: invented'
            return ghost.daemons == ("robot",) and failure in (ghost.reason or "")

        wait_until(shows_it, what="the invented failure to be listed")
        robot.send(
            PartChanged(report=own.model_copy(update={"phase": "stopping", "stopped": True}))
        )
        robot.until_handled()
        (real,) = [one for one in fleet.listed() if one.uuid == dataflow]
        assert (real.status, real.reason) == ("Running", None)
    fleet.wait_for_messages(dataflow)
    assert pids(workspace) == nodes


def test_code_is_checked_by_its_hash(fleet: RealFleet) -> None:
    real, forged_content = b"print('real')", b"print('forged')"
    path = file_path(hashlib.sha256(real).hexdigest())
    refused = fleet.coordinator.request(path, method="PUT", body=forged_content)
    assert refused.status == 422
    assert fleet.coordinator.request(path).status == 404
    assert fleet.coordinator.request(path, method="PUT", body=real).status == 201
    fleet.coordinator.request(path, method="PUT", body=forged_content)
    assert fleet.coordinator.request(path).body == real


def test_a_forged_clock_is_that_of_the_machine_alone(fleet: RealFleet, tmp_path: Path) -> None:
    with hostile_machine(fleet.coordinator, tmp_path / "robot") as robot:
        robot.send(Heartbeat(time=9e29, monotonic_ns=-(1 << 62)))

        def offsets() -> dict[str, float]:
            found = fleet.cluster().machines
            return {one.daemon: one.clock_offset for one in found if one.clock_offset is not None}

        wait_until(lambda: offsets().keys() == {"base", "robot"}, what="both clocks")
        found = offsets()
        assert abs(found["base"]) < 60
        assert found["robot"] > 1e29
        assert "robot" in fleet.dora("status").stderr
        robot.send_text('{"kind": "heartbeat", "time": 1e999}')  # ends its own connection
        wait_until(lambda: not connected(fleet, "robot"), what="the end of its connection")
    assert leads(fleet)


def test_a_copy_that_is_said_to_be_kept_counts_for_standbys_only(
    fleet: RealFleet, tmp_path: Path
) -> None:
    standby = Standby(machine="base", address="127.0.0.2:6013")
    with hostile_machine(fleet.coordinator, tmp_path / "robot") as robot:
        with CoordinatorClient(fleet.coordinator.endpoint) as client:
            request = SetStandbys(address="127.0.0.1:6013", standbys=(standby,))
            client.request(request)
        robot.send(CopyKept(epoch=1, number=1 << 62))
        answers = robot.until_handled()
        assert not any(isinstance(one, CoordinatorCopy) for one in answers), "it gets no copy"
        wait_until(lambda: fleet.cluster().standbys[0].current, what="the copy on base")
        (report,) = fleet.cluster().standbys
        assert report.machine == "base"
        assert (report.number or 0) < 1 << 32


def test_a_certificate_is_for_its_own_key_and_name(fleet: RealFleet, tmp_path: Path) -> None:
    other = Credentials(tmp_path / "other")
    with hostile_machine(fleet.coordinator, tmp_path / "robot") as robot:
        robot.send(SignRequest(request=other.request()))
        assert not any(isinstance(one, Certificate) for one in robot.until_handled())
        robot.send(SignRequest(request=Credentials(tmp_path / "robot").request()))
        (made,) = [one for one in robot.until_handled() if isinstance(one, Certificate)]
        name = x509.load_pem_x509_certificate(made.certificate.encode()).subject
        assert name.rfc4514_string().startswith("CN=robot:")
    with hostile_machine(fleet.coordinator, tmp_path / "thief", "base") as thief:
        assert isinstance(thief.answer, RegistrationRefused), "the id of another machine"


def described(dataflow: str, *nodes: str, name: str | None = None) -> PartDescribed:
    """A description of nodes that run another program, as of a start far in the future."""
    found = tuple(ResolvedNode(id=node, path="/bin/forged") for node in nodes)
    spec = DataflowSpec(name=name, resolved=ResolvedDataflow(nodes=found))
    others = DataflowSpec(name=name, resolved=ResolvedDataflow(nodes=found))
    return PartDescribed(
        dataflow_id=dataflow,
        attempt=1,
        spec=spec,
        revision=1 << 40,
        whole=WholeDataflow(
            begun=FUTURE,
            changes=1 << 40,
            placement=dict.fromkeys(nodes, "base"),
            packed=pack(others),
        ),
    )


def test_a_forged_start_replaces_nothing(
    fleet: RealFleet, workspace: Workspace, tmp_path: Path
) -> None:
    """Neither the end of a later start, nor one that runs, nor the nodes of other machines."""
    path = counting(workspace, counter=ON_BASE, collector=ON_BASE)
    dataflow = fleet.start(path, "--name", "patrol")
    nodes = wait_for_pids(workspace, 2)
    invented = str(uuid.uuid4())
    later = PartReport(
        dataflow_id=invented, attempt=1, phase="running", name="patrol", begun=FUTURE
    )
    known = PartReport(
        dataflow_id=dataflow, attempt=1, phase="running", name="patrol", begun=FUTURE
    )
    ended = later.model_copy(update={"phase": "ended"})
    with hostile_machine(
        fleet.coordinator, tmp_path / "robot", parts=(later, known), ends=(ended,)
    ) as robot:
        robot.send(Heartbeat(parts=(later, known)))
        robot.send(described(invented, "evil", name="patrol"))
        robot.send(described(dataflow, "counter", name="patrol"))
        robot.until_handled()
        log = fleet.coordinator.process.stderr
        assert "is not signed by the authority of this cluster; examine that machine" in log
        assert 'daemon "robot" describes nodes of other machines: counter' in log
        fleet.wait_for_messages(dataflow)
        assert pids(workspace) == nodes
        assert all(map(is_running, nodes))
        fleet.dora("restart", "patrol")
    assert "forged" not in fleet.coordinator.process.stderr
    fresh = wait_for_pids(workspace, 4)
    assert all(map(is_running, fresh)), "the program of the operator"


def test_a_machine_keeps_the_start_that_was_signed(fleet: RealFleet, workspace: Workspace) -> None:
    """With it, a coordinator without its store takes over both parts from one of them."""
    dataflow = fleet.start(counting(workspace, counter=ON_BASE, collector=ON_BASE), "--name", "p")
    nodes = wait_for_pids(workspace, 2)
    fleet.coordinator.process.kill()
    for path in (state_dir() / "coordinator").glob("store.sqlite3*"):
        path.unlink()
    fleet.restart_coordinator()
    assert fleet.wait_for_status("Running").uuid == dataflow
    assert "is not signed" not in fleet.coordinator.process.stderr
    assert all(map(is_running, nodes))


def test_the_token_of_a_machine_permits_only_what_its_daemon_does(
    fleet: RealFleet, tmp_path: Path
) -> None:
    at = fleet.coordinator.endpoint
    assert at.token is not None
    machine = Token.parse(at.token).for_machine
    shown = at._replace(token=str(machine)).headers()

    def status(method: str, path: str, body: bytes | None = None) -> int:
        request = fleet.coordinator.request
        return request(path, method=method, headers=shown, body=body).status

    path = file_path(hashlib.sha256(b"code").hexdigest())
    assert status("PUT", path, b"code") == 201
    assert status("GET", path) == 200
    for method, refused in (
        ("GET", "/api/status"),
        ("GET", "/api/dataflows"),
        ("POST", "/api/request"),
        ("POST", "/api/files"),
        ("GET", "/api/recordings/a/b/c"),
        ("GET", "/api/succession/copy"),
        ("POST", "/api/succession"),
        ("GET", "/metrics"),
    ):
        assert status(method, refused, b"" if method == "POST" else None) == 403, refused
    with pytest.raises(InvalidStatus, match="403"):
        fleet.coordinator.open_socket("/api/control", headers=shown)
    refused_command = run_dora(
        "down", "--force", "--coordinator-port", str(fleet.port), env={TOKEN_VARIABLE: str(machine)}
    )
    assert refused_command.code == 1
    assert "the token of a machine permits only what its daemon does" in refused_command.output
    assert leads(fleet)


def test_a_daemon_with_the_token_of_a_machine_gets_the_next_one(fleet: RealFleet) -> None:
    at = fleet.coordinator.endpoint
    assert at.token is not None
    machine = Token.parse(at.token).for_machine
    daemon = fleet.start_daemon("robot", env={TOKEN_VARIABLE: str(machine)})
    with CoordinatorClient(at) as client:
        client.request(RotateToken(grace=0.0))
    daemon.wait_for("received the new token of the cluster")
    text = (state_dir() / "daemon" / "robot" / "token").read_text().split()[0]
    assert fleet.coordinator.endpoint.token is not None
    assert Token.parse(text) == Token.parse(fleet.coordinator.endpoint.token).for_machine
    own = (state_dir() / "daemon" / "base" / "token").read_text().split()[0]
    assert not Token.parse(own).is_of_machine, "a daemon that was given the token of the cluster"
    daemon.kill()
    fleet.start_daemon("robot", env={TOKEN_VARIABLE: str(machine)})
