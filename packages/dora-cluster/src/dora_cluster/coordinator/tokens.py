"""The authority of a coordinator and its tokens: stored for this account, delivered to daemons."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import PurePosixPath

from dora_cluster.coordinator import queries
from dora_cluster.coordinator.service import CoordinatorService
from dora_cluster.machines.remote_machine import RemoteMachine
from dora_config.access import read_successor, successor_path, write_successor
from dora_config.access_token import Successor, Token
from dora_config.cluster.models import Cluster
from dora_config.control_plane import local_authority

AUTHORITY = ".local/state/dora/coordinator/authority/ca.pem"
"""Path in the home of the account that the service runs as."""


def trust_authority(service: CoordinatorService) -> None:
    """Wait for the authority of a started service, and store the account's token with its hash."""
    token = queries.endpoint_of(service.host.cluster).token
    if token is None:
        return
    path = f"{service.facts.home}/{AUTHORITY}"
    connection = service.host.connection
    service.wait_until(lambda: connection.read(path) is not None, "has no authority")
    certificate = (connection.read(path) or b"").decode("ascii")
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest()
    remember(service.host.cluster, Token(Token.parse(token).secret, digest))


def trust_local_authority(cluster: Cluster) -> None:
    """Add the authority of a coordinator on this machine to a token without one.

    The coordinator cannot add it: its arguments may lack its address in the cluster file.
    """
    address = queries.endpoint_of(cluster)
    if address.token is None or address.authority is not None:
        return
    digest = local_authority(address)
    if digest is not None:
        remember(cluster, Token(Token.parse(address.token).secret, digest))


def remember(cluster: Cluster, token: Token) -> None:
    """Store the token for a cluster's address in this account."""
    path = successor_path(cluster.coordinator.addr, cluster.coordinator.port)
    write_successor(path, Successor(token))


def deliver_token(remote: RemoteMachine) -> None:
    """Store the token of machines in the state directory of a daemon."""
    text = queries.endpoint_of(remote.cluster).token
    if text is None or Token.parse(text).authority is None:
        return
    coordinator = remote.cluster.coordinator
    successor = Successor(Token.parse(text).for_machine)
    successor = successor.following(
        read_successor(successor_path(coordinator.addr, coordinator.port))
    )
    folder = remote.call("daemon.prepare", name=remote.machine.daemon)["folder"]
    path = f"{PurePosixPath(folder).parent}/token"
    remote.connection.write(path, f"{successor}\n".encode(), mode=0o600)
