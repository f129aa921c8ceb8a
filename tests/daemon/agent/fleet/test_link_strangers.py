"""Foreign programs on every port of a fleet: they receive nothing and disturb nothing."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.fleets.daemons import RealFleet, real_fleet
from support.fleets.linked_fleet import complete, crossing, link_of, runner_of, wait_until_connected
from support.workspace import Workspace

from dora_config.access import state_dir
from dora_config.machine_identity import key_digest
from dora_coordinator.io.authority import Authority
from dora_daemon.agent.credentials import Credentials

pytestmark = pytest.mark.integration

MACHINES = ("robot", "station")


@pytest.fixture
def fleet(workspace: Workspace) -> Iterator[RealFleet]:
    with real_fleet(workspace, *MACHINES) as running:
        running.start(crossing(workspace))
        yield running


def sockets(pids: list[int], kind: str) -> set[int]:
    """Return the ports on which these processes listen (``tcp``) or that are open (``udp``)."""
    found = set()
    for pid in pids:
        for one in psutil.Process(pid).net_connections(kind):
            if kind == "udp" or one.status == psutil.CONN_LISTEN:
                found.add(one.laddr[1])
    return found


def link_ports() -> set[int]:
    return sockets([link_of(machine) for machine in MACHINES], "tcp")


def test_only_the_coordinator_and_links_listen(fleet: RealFleet) -> None:
    links = [link_of(machine) for machine in MACHINES]
    others = [fleet.daemons[machine].pid for machine in MACHINES]
    others += [runner_of(machine) for machine in MACHINES]
    assert sockets(others, "tcp") == set()
    assert sockets([fleet.coordinator.process.pid], "tcp") == {fleet.port}
    assert all(7450 <= port <= 7549 for port in sockets(links, "tcp"))
    # Each link has one port for ordinary and one for low-latency connections.
    assert len(sockets(links, "tcp")) == 2 * len(MACHINES)
    assert sockets([*links, *others], "udp") == set(), "no multicast"


def answer(port: int, context: ssl.SSLContext | None) -> bytes:
    """Return the bytes that a link sends to a foreign program before it disconnects."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
            if context is None:
                plain.sendall(b"GET / HTTP/1.0\r\n\r\n" + bytes(4096))
                return _application_data(plain.recv(4096))
            with context.wrap_socket(plain) as tls:
                tls.sendall(bytes(64))
                return tls.recv(4096)
    except (ssl.SSLError, ConnectionError, TimeoutError):
        return b""


def _application_data(data: bytes) -> bytes:
    """Return the bytes without alerts of TLS (content type 21)."""
    return b"" if data[:1] == b"\x15" else data


def stranger(credentials: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if credentials is not None:
        context.load_cert_chain(credentials / "cert.pem", credentials / "key.pem")
    return context


def test_strangers_receive_and_change_nothing(fleet: RealFleet, tmp_path: Path) -> None:
    foreign = Authority(tmp_path / "authority")
    credentials = Credentials(tmp_path / "foreign")
    digest = key_digest(base64.b64decode(credentials.public_key))
    credentials.store(foreign.sign(credentials.request(), "robot", digest), foreign.pem)
    uuid = fleet.listed()[-1].uuid
    fleet.wait_for_messages(uuid)
    for port in sorted(link_ports()):
        assert answer(port, None) == b""
        assert answer(port, stranger(None)) == b"", "without a certificate"
        assert answer(port, stranger(credentials.directory)) == b"", "with a foreign certificate"
        with socket.create_connection(("127.0.0.1", port)):
            pass  # and one that sends nothing
    fleet.wait_for_messages(uuid, 50)
    wait_until_connected(fleet)
    complete(fleet, uuid)


def test_member_of_the_cluster_is_accepted(fleet: RealFleet) -> None:
    """Otherwise the tests above would prove nothing."""
    own = state_dir() / "daemon" / "robot" / "credentials"
    for port in link_ports():
        with (
            socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
            stranger(own).wrap_socket(plain) as tls,
        ):
            tls.settimeout(0.5)
            with pytest.raises(TimeoutError):
                tls.recv(1)  # it waits for a message


def test_keys_are_for_their_owner_alone(fleet: RealFleet) -> None:
    assert fleet.port
    state = state_dir()
    folders = [state / "coordinator" / "authority"]
    folders += [state / "daemon" / machine / "credentials" for machine in MACHINES]
    for folder in folders:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
