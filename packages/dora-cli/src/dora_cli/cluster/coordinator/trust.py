"""The token of a coordinator on another machine: its authority is read over SSH."""

from __future__ import annotations

import hashlib
import ssl

from dora_cli.cluster.coordinator.service import CoordinatorService
from dora_config.access import successor_path, write_successor
from dora_config.access_token import Successor, Token
from dora_config.cluster.models import Cluster

AUTHORITY = ".local/state/dora/coordinator/authority/ca.pem"
"""In the home of the account that the service runs as."""


def trust_authority(service: CoordinatorService, token: str) -> None:
    """Wait for the authority of a started service, and store the account's token with its hash."""
    path = f"{service.facts.home}/{AUTHORITY}"
    connection = service.host.connection
    service.wait_until(lambda: connection.read(path) is not None, "has no authority")
    certificate = (connection.read(path) or b"").decode("ascii")
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest()
    remember(service.host.cluster, Token(Token.parse(token).secret, digest))


def remember(cluster: Cluster, token: Token) -> None:
    """Store the token for a cluster's address in this account."""
    path = successor_path(cluster.coordinator.addr, cluster.coordinator.port)
    write_successor(path, Successor(token))
