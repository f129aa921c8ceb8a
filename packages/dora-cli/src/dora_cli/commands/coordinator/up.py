"""`dora up`."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import output
from dora_cli.coordinator.options import CoordinatorPort
from dora_config.protocol.rest import paths

if TYPE_CHECKING:
    from dora_cli.coordinator.background import BackgroundProcess
    from dora_cli.coordinator.client import Client
    from dora_config.access import Endpoint

COORDINATOR_TIMEOUT = 30.0
DAEMON_TIMEOUT = 30.0
BACKLOG = 4096
"""Connections that may wait, as for a coordinator that listens itself."""


def main(
    auth: Annotated[bool, typer.Option("--auth", help="Require the token (the default).")] = False,
    recreate_store: Annotated[
        bool,
        typer.Option(
            "--recreate-store", help="Start with an empty store; the old one is kept as a backup."
        ),
    ] = False,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Start a coordinator and a daemon on this machine, unless they are running."""
    from dora_cli.coordinator.client import Client
    from dora_cli.coordinator.errors import CoordinatorUnreachable
    from dora_config.access import endpoint

    target = endpoint("127.0.0.1", coordinator_port)
    _warn_of_other_address(target)
    daemon = None
    try:
        with Client(target) as client:
            daemons = _default_daemons(client)
        output.write("coordinator: already running")
        if recreate_store:
            output.warn("the store is in use and was kept; run `dora down` before --recreate-store")
    except CoordinatorUnreachable:
        coordinator = _start_coordinator(target, recreate=recreate_store)
        try:
            if target.token is not None:  # else the coordinator creates it
                daemon = _start_daemon(target)
            _wait_for_coordinator(coordinator, target)
        except BaseException:
            if daemon is not None:
                daemon.end()
            raise
        daemons = 0
        output.write("coordinator: started")
    if not daemons and _is_new(daemon, endpoint(target.host, target.port)):
        output.write("daemon: started")
    else:
        output.write("daemon: already running")


def _warn_of_other_address(target: Endpoint) -> None:
    """Warn if DORA_COORDINATOR_ADDR sends other commands to another coordinator."""
    elsewhere = os.environ.get("DORA_COORDINATOR_ADDR", target.host)
    if elsewhere not in (target.host, "localhost"):
        output.warn(
            f"DORA_COORDINATOR_ADDR is {elsewhere}: other commands will use the coordinator there, "
            f"not the one on this machine; give them --coordinator-addr {target.host}"
        )


def _default_daemons(client: Client) -> int:
    """Return the number of connected daemons without machine id; raises what `Client` raises."""
    machines = client.get(paths.STATUS).machines
    return sum(one.connected and one.machine_id is None for one in machines)


def _start_coordinator(target: Endpoint, *, recreate: bool) -> BackgroundProcess:
    """Start a coordinator. Clients can connect at once, and wait until it accepts them, unless
    DORA_COORDINATOR_INTERFACE names another address.
    """
    from dora_cli.coordinator import background
    from dora_config.spawn_argv import run_module

    arguments = ["--port", str(target.port), *(["--recreate-store"] if recreate else [])]
    argv = [*run_module("dora_coordinator.command"), *arguments]
    if os.environ.get("DORA_COORDINATOR_INTERFACE", target.host) != target.host:
        return background.start("coordinator", argv)
    try:
        listener = socket.create_server((target.host, target.port), backlog=BACKLOG)
    except OSError as error:
        raise background.NotStarted(
            f"cannot listen on {target}: {error.strerror}; choose another --coordinator-port"
        ) from error
    with listener:
        return background.start("coordinator", argv, stdin=listener.fileno())


def _wait_for_coordinator(process: BackgroundProcess, target: Endpoint) -> None:
    from dora_cli.coordinator.background import warn_unless_exported
    from dora_cli.coordinator.client import Client
    from dora_cli.coordinator.errors import CoordinatorUnreachable
    from dora_config.access import endpoint

    def answers() -> bool:
        try:
            # reads the token again: the coordinator may have created it
            with Client(endpoint(target.host, target.port)) as client:
                _default_daemons(client)
        except CoordinatorUnreachable:
            return False
        return True

    process.wait_until(answers, within=COORDINATOR_TIMEOUT)
    warn_unless_exported()


def _start_daemon(target: Endpoint) -> BackgroundProcess | None:
    """Start a daemon; return None if one runs."""
    from dora_cli.coordinator import background
    from dora_config.spawn_argv import run_module
    from dora_daemon.agent.part_files import DEFAULT_LISTEN_PORT, is_running, state_directory

    if is_running(state_directory(None, DEFAULT_LISTEN_PORT)):
        return None
    arguments = ["--coordinator-addr", target.host, "--coordinator-port", str(target.port)]
    return background.start("daemon", [*run_module("dora_daemon.command"), *arguments])


def _is_new(daemon: BackgroundProcess | None, target: Endpoint) -> bool:
    """Start a daemon if there is none, and wait for its connection; return False if it already ran.

    A daemon that lost its coordinator pauses for up to 25 s between attempts to connect.
    """
    from dora_cli.coordinator.background import NotStarted
    from dora_cli.coordinator.client import Client

    deadline = time.monotonic() + DAEMON_TIMEOUT
    with Client(target) as client:
        while daemon is None and (daemon := _start_daemon(target)) is None:
            if _default_daemons(client):
                return False
            if time.monotonic() > deadline:
                raise NotStarted(
                    f"a daemon runs on this machine and has not connected to the coordinator at "
                    f"{target} within {DAEMON_TIMEOUT:g} s; if it belongs to another coordinator, "
                    "end it, or start a second one with `dora daemon --local-listen-port PORT`"
                )
            time.sleep(0.1)
        daemon.wait_until(lambda: _default_daemons(client) > 0, within=DAEMON_TIMEOUT)
    return True
