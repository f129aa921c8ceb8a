"""A coordinator that `dora cluster promote` starts on a machine over SSH."""

from __future__ import annotations

import json
from typing import Any

from dora_cli.bundle.install import Installer
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.coordinator.local import coordinator_arguments
from dora_cli.cluster.coordinator.service import (
    CoordinatorMachine,
    installed_service,
    open_coordinator_machine,
    program_words,
)
from dora_cli.cluster.coordinator.service_install import install_on
from dora_cli.cluster.coordinator.trust import remember
from dora_cli.cluster.decisions.preflight import NotReady
from dora_cli.polling import wait_until
from dora_config.access import address_text
from dora_config.access_token import Token
from dora_config.cluster.models import Cluster

START_TIMEOUT = 30.0
RESTORE_TIMEOUT = 120.0
POLL_INTERVAL = 0.2


def restore_and_start(
    cluster: Cluster,
    installer: Installer,
    copy: dict[str, Any],
    token: str,
    *,
    epoch: int,
    machine: str,
    service: bool,
    user: bool,
) -> dict[str, Any]:
    """Start the coordinator of a copy on its machine; return what that printed.

    ``service``: as a systemd service (``user``: of the account), otherwise in the background.
    """
    with open_coordinator_machine(cluster) as host:
        assert host is not None  # it has a host
        words = program_words(host, installer, user=user or not service)
        place = cluster.coordinator
        given = {
            "token": token,
            "state": copy,
            "epoch": epoch,
            "machine": machine,
            "address": address_text(place.addr, place.port),
        }
        restored: dict[str, Any] = json.loads(
            host.connection.check(
                [*words, "--restore", "--port", str(place.port)],
                stdin=json.dumps(given).encode(),
                timeout=RESTORE_TIMEOUT,
            ).splitlines()[-1]
        )
        remember(cluster, Token.parse(token))
        if service:
            install_on(host, installer, token, user=user)
        else:
            _start(host, words, token)
    return restored


def start_promoted(cluster: Cluster, installer: Installer) -> bool:
    """Start a promoted coordinator again in the background; False: it has a service."""
    token = queries.endpoint_of(cluster).token
    with installed_service(cluster) as service:
        if service is not None or token is None:
            return False
    with open_coordinator_machine(cluster) as host:
        if host is None or not host.is_remote:
            return False
        _start(host, program_words(host, installer, user=True), token)
    return True


def _start(host: CoordinatorMachine, words: list[str], token: str) -> None:
    arguments = coordinator_arguments(host.cluster)
    started = host.call("standby.start", words=[*words, *arguments], token=token)
    if not wait_until(
        lambda: queries.fetch_report(host.cluster) is not None, START_TIMEOUT, every=POLL_INTERVAL
    ):
        raise NotReady(
            f"the coordinator was started on {host.where} and does not answer at "
            f"{queries.endpoint_of(host.cluster)} within {START_TIMEOUT:g} s; open the port, or "
            f"see its output there: {started['log']}"
        )
