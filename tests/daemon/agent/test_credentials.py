"""Certificates: requested in time, signed by the cluster, trusted only by its links."""

from __future__ import annotations

import base64
import shutil
import socket
import ssl
import threading
from pathlib import Path

import anyio
import pytest

from dora_config.errors import RemoteProtocolError
from dora_config.machine_identity import certificate_name, challenge_text, key_digest
from dora_coordinator.io.authority import Authority, AuthorityError
from dora_coordinator.io.server import verify_proof
from dora_daemon.agent.credentials import Credentials


def member(folder: Path, authority: Authority, name: str) -> Credentials:
    """A machine with its certificate."""
    credentials = Credentials(folder / name)
    digest = key_digest(base64.b64decode(credentials.public_key))
    credentials.store(authority.sign(credentials.request(), name, digest), authority.pem)
    return credentials


def name_of(credentials: Credentials) -> str:
    """The common name of a machine "robot"."""
    return certificate_name("robot", key_digest(base64.b64decode(credentials.public_key)))


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    credentials = member(tmp_path, authority, "robot")
    for folder in (tmp_path / "authority", credentials.directory):
        assert folder.stat().st_mode & 0o777 == 0o700
        for path in folder.iterdir():
            assert path.stat().st_mode & 0o777 == 0o600, path


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    first = Authority(tmp_path / "authority")
    assert Authority(tmp_path / "authority").fingerprint == first.fingerprint
    shutil.rmtree(tmp_path / "authority")
    assert Authority(tmp_path / "authority").fingerprint != first.fingerprint


def test_an_authority_that_was_made_by_half_is_made_anew(tmp_path: Path) -> None:
    Authority(tmp_path / "authority")
    certificate = tmp_path / "authority" / "ca.pem"
    certificate.unlink()
    assert Authority(tmp_path / "authority").pem == certificate.read_text()


def test_a_spoilt_authority_is_explained(tmp_path: Path) -> None:
    Authority(tmp_path / "authority")
    (tmp_path / "authority" / "key.pem").write_text("nonsense")
    with pytest.raises(AuthorityError, match="move the folder aside"):
        Authority(tmp_path / "authority")


@pytest.mark.parametrize("request_text", ["", "nonsense", "-----BEGIN CERTIFICATE REQUEST-----\n"])
def test_nothing_but_a_request_is_signed(tmp_path: Path, request_text: str) -> None:
    with pytest.raises(AuthorityError, match="not a certificate signing request"):
        Authority(tmp_path / "authority").sign(request_text, "robot", "")


def test_a_certificate_is_requested_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    credentials = Credentials(tmp_path / "robot")
    assert credentials.wanted(authority.fingerprint, name_of(credentials))
    credentials = member(tmp_path, authority, "robot")
    assert not credentials.wanted(authority.fingerprint, name_of(credentials))


def test_a_certificate_with_another_name_is_replaced(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    credentials = member(tmp_path, authority, "robot")
    assert not credentials.wanted(authority.fingerprint, name_of(credentials))
    assert credentials.wanted(authority.fingerprint, "station:key")


def test_only_the_key_that_was_proved_is_signed(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    robot, station = Credentials(tmp_path / "robot"), Credentials(tmp_path / "station")
    digest = key_digest(base64.b64decode(robot.public_key))
    with pytest.raises(AuthorityError, match="another key than the machine"):
        authority.sign(station.request(), "robot", digest)


def test_a_long_machine_id_is_shortened_in_the_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    credentials = Credentials(tmp_path / "robot")
    digest = key_digest(base64.b64decode(credentials.public_key))
    authority.sign(credentials.request(), "r" * 200, digest)
    assert certificate_name("r" * 200, digest) == f"{'r' * 39}:{digest[:24]}"


def test_a_proof_is_for_one_key_challenge_and_cluster(tmp_path: Path) -> None:
    robot, station = Credentials(tmp_path / "robot"), Credentials(tmp_path / "station")
    signature = robot.sign(challenge_text("nonce", "authority"))
    digest = verify_proof(robot.public_key, signature, "nonce", "authority")
    assert digest == key_digest(base64.b64decode(robot.public_key))
    for public_key, given, nonce, authority in (
        (station.public_key, signature, "nonce", "authority"),
        (robot.public_key, signature, "another", "authority"),
        (robot.public_key, signature, "nonce", "another"),
        (robot.public_key, "", "nonce", "authority"),
        ("x", signature, "nonce", "authority"),
    ):
        with pytest.raises(RemoteProtocolError, match="did not prove that it has its key"):
            verify_proof(public_key, given, nonce, authority)


def test_a_new_authority_makes_a_certificate_useless(tmp_path: Path) -> None:
    credentials = member(tmp_path, Authority(tmp_path / "old"), "robot")
    assert credentials.wanted(Authority(tmp_path / "new").fingerprint, name_of(credentials))


def test_a_certificate_of_another_authority_is_replaced(tmp_path: Path) -> None:
    """A daemon may end between the two files that it stores."""
    credentials = member(tmp_path, Authority(tmp_path / "old"), "robot")
    new = Authority(tmp_path / "new")
    (credentials.directory / "ca.pem").write_text(new.pem)
    assert credentials.wanted(new.fingerprint, name_of(credentials))


def test_the_key_stays_and_a_lost_one_is_replaced(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    credentials = member(tmp_path, authority, "robot")
    name = name_of(credentials)
    assert not Credentials(tmp_path / "robot").wanted(authority.fingerprint, name)
    (credentials.directory / "key.pem").write_text("nonsense")
    assert Credentials(tmp_path / "robot").wanted(authority.fingerprint, name)


def test_a_start_waits_for_the_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")

    async def before_and_after() -> tuple[bool, bool]:
        credentials = Credentials(tmp_path / "robot")
        before = await credentials.usable(within=0.01)
        digest = key_digest(base64.b64decode(credentials.public_key))
        credentials.store(authority.sign(credentials.request(), "robot", digest), authority.pem)
        return before, await credentials.usable(within=0.01)

    assert anyio.run(before_and_after) == (False, True)


def context(credentials: Path, purpose: ssl.Purpose) -> ssl.SSLContext:
    """As a link sets up TLS: the other side must show a certificate of the cluster."""
    made = ssl.create_default_context(purpose, cafile=credentials / "ca.pem")
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(credentials / "cert.pem", credentials / "key.pem")
    return made


def shake_hands(server: Path, client: Path) -> bool:
    """Whether two machines accept each other."""
    near, far = socket.socketpair()
    near.settimeout(10)
    far.settimeout(10)
    outcome: list[bool] = []

    def serve() -> None:
        try:
            with context(server, ssl.Purpose.CLIENT_AUTH).wrap_socket(
                near, server_side=True
            ) as tls:
                tls.sendall(b"x")
                outcome.append(True)
        except (ssl.SSLError, OSError):
            near.close()
            outcome.append(False)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with context(client, ssl.Purpose.SERVER_AUTH).wrap_socket(far) as tls:
            accepted = tls.recv(1) == b"x"
    except (ssl.SSLError, OSError):
        far.close()
        accepted = False
    thread.join()
    return accepted and outcome == [True]


def test_only_machines_of_one_cluster_accept_each_other(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    robot, base = member(tmp_path, ours, "robot"), member(tmp_path, ours, "base")
    stranger = member(tmp_path, theirs, "stranger")
    forger = member(tmp_path, theirs, "forger")
    shutil.copy(robot.directory / "ca.pem", forger.directory / "ca.pem")
    assert shake_hands(robot.directory, base.directory)
    assert not shake_hands(robot.directory, stranger.directory)
    assert not shake_hands(stranger.directory, robot.directory)
    assert not shake_hands(robot.directory, forger.directory)
