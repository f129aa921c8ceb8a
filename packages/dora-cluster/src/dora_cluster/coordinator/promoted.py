"""The coordinator after `dora cluster promote`: restored from a copy, started, removed."""

from __future__ import annotations

from dora_cli.polling import wait_until
from dora_cluster.bundle.install import Installer
from dora_cluster.coordinator import queries
from dora_cluster.coordinator.installation import install_on, uninstall_service
from dora_cluster.coordinator.local import (
    coordinator_arguments,
    start_coordinator,
)
from dora_cluster.coordinator.place import CoordinatorMachine, open_place
from dora_cluster.coordinator.service import (
    POLL_INTERVAL,
    START_TIMEOUT,
    find_service,
    program_words,
)
from dora_cluster.coordinator.tokens import remember
from dora_cluster.decisions.preflight import (
    NotReady,
)
from dora_cluster.decisions.promotion import StoreFacts, promoted
from dora_cluster.machines.remote_machine import RemoteMachine
from dora_config.access import Moved
from dora_config.access_token import Token
from dora_config.cluster.models import Cluster
from dora_config.protocol.daemon import CoordinatorCopy
from dora_coordinator.io.succession import Restoration, Restored

RESTORE_TIMEOUT = 120.0
"""Seconds to copy or restore a store on another machine."""


def copy_own_store(cluster: Cluster, installer: Installer, token: str) -> CoordinatorCopy:
    """Return a copy of the store of the coordinator's machine. Raises DoraError.

    No coordinator may run there.
    """
    with open_place(cluster) as host:
        words = program_words(host, installer, user=True)
        printed = host.connection.check(
            [*words, "--copy", "--port", str(cluster.coordinator.port)],
            stdin=token.encode(),
            timeout=RESTORE_TIMEOUT,
        )
    return CoordinatorCopy.model_validate_json(printed.splitlines()[-1])


def restore_and_start(
    cluster: Cluster, installer: Installer, given: Restoration, *, as_user: bool | None
) -> tuple[Restored, str]:
    """Start the coordinator of a copy on its machine; return what was restored, and how it runs.

    ``as_user``: install it as a systemd service, of the account (True) or of the machine; None: as
    the service that is installed, otherwise in the background. What was there before is put back
    if it does not start.
    """
    with open_place(cluster) as host:
        words = program_words(host, installer, user=as_user is not False)
        service = find_service(host)
        if service is not None:
            service.stop()  # the service of a coordinator that was replaced
        printed = host.connection.check(
            [*words, "--restore", "--port", str(cluster.coordinator.port)],
            stdin=given.model_dump_json().encode(),
            timeout=RESTORE_TIMEOUT,
        )
        restored = Restored.model_validate_json(printed.splitlines()[-1])
        remember(cluster, Token.parse(given.token))
        try:
            if as_user is not None:
                install_on(host, installer, given.token, user=as_user)
            elif service is not None:
                service.start()
                service.wait_until_it_answers()
            elif host.is_remote:
                _start(host, words, given.token)
            else:
                start_coordinator(cluster)
        except BaseException:
            if service is not None:
                service.stop()
            elif (made := find_service(host)) is not None:
                made.disable()
                made.remove_unit()
            host.call("coordinator.undo")
            raise
    in_background = as_user is None and service is None
    return restored, "in the background" if in_background else "as a service"


def remove_promoted(remote: RemoteMachine, installer: Installer) -> None:
    """Remove the coordinator that `promote` has put on a machine, and its tokens.

    A coordinator of another cluster at the same address is not removed.
    """
    address, place = remote.machine.address, remote.cluster.coordinator
    token = queries.endpoint_of(remote.cluster).token
    authority = None if token is None else Token.parse(token).authority
    if address is None or authority is None:
        return
    answer = remote.call("coordinator.own_store", port=place.port)
    if StoreFacts.of(answer, authority.hex(), remote.machine.id) is None:
        return
    moved = Moved(address, place.port, remote.machine.id)
    host = CoordinatorMachine(promoted(remote.cluster, moved), remote.machine, remote.connection)
    if (service := find_service(host)) is not None:
        uninstall_service(service, installer)
    host.call("coordinator.remove", addr=address, port=place.port)


def start_promoted(cluster: Cluster, installer: Installer, *, recreate_store: bool) -> bool:
    """Start a promoted coordinator again in the background.

    Return False if it has a service, or does not belong on another machine.
    """
    token = queries.endpoint_of(cluster).token
    if token is None or cluster.coordinator.host is None:
        return False
    with open_place(cluster) as host:
        if find_service(host) is not None:
            return False
        if recreate_store:
            host.call("coordinator.put_store_aside")
        _start(host, program_words(host, installer, user=True), token)
    return True


def _start(host: CoordinatorMachine, words: list[str], token: str) -> None:
    arguments = coordinator_arguments(host.cluster)
    started = host.call("coordinator.start", words=[*words, *arguments], token=token)
    if not wait_until(
        lambda: queries.fetch_report(host.cluster) is not None, START_TIMEOUT, every=POLL_INTERVAL
    ):
        raise NotReady(
            f"the coordinator was started on {host.where} and does not answer at "
            f"{queries.endpoint_of(host.cluster)} within {START_TIMEOUT:g} s; open the port, or "
            f"see its output there: {started['log']}"
        )
