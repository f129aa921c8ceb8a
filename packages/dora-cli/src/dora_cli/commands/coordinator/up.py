"""`dora up`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import output
from dora_cli.coordinator.options import CoordinatorPort

if TYPE_CHECKING:
    from dora_config.access import Endpoint

COORDINATOR_TIMEOUT = 30.0
DAEMON_TIMEOUT = 30.0


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
    from dora_cli.coordinator.errors import CoordinatorUnreachable
    from dora_config.access import endpoint

    target = endpoint("127.0.0.1", coordinator_port)
    _warn_of_other_address(target)
    try:
        daemons = _default_daemons(target)
        output.write("coordinator: already running")
        if recreate_store:
            output.warn("the store is in use and was kept; run `dora down` before --recreate-store")
    except CoordinatorUnreachable:
        _start_coordinator(target, recreate=recreate_store)
        daemons = 0
        output.write("coordinator: started")
    if not daemons and _start_daemon(target):
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


def _default_daemons(target: Endpoint) -> int:
    """Return the number of connected daemons without machine id; raises what `Client` raises."""
    from dora_cli.coordinator.client import Client
    from dora_config.protocol.control import ClusterReport, ClusterStatus

    with Client(target) as client:
        report = client.request(ClusterStatus(), ClusterReport)
    return sum(one.connected and one.machine_id is None for one in report.machines)


def _start_coordinator(target: Endpoint, *, recreate: bool) -> None:
    from dora_cli.coordinator import background
    from dora_cli.coordinator.errors import CoordinatorUnreachable
    from dora_config.access import endpoint
    from dora_config.spawn_argv import run_module

    arguments = ["--port", str(target.port), *(["--recreate-store"] if recreate else [])]
    argv = [*run_module("dora_coordinator.command"), *arguments]
    process = background.start("coordinator", argv)

    def answers() -> bool:
        try:
            # reads the token again: the coordinator may have created it
            _default_daemons(endpoint(target.host, target.port))
        except CoordinatorUnreachable:
            return False
        return True

    process.wait_until(answers, within=COORDINATOR_TIMEOUT)
    background.warn_unless_exported()


def _start_daemon(target: Endpoint) -> bool:
    """Start a daemon and wait for its connection; return False if it already ran.

    A daemon that lost its coordinator pauses for up to 25 s between attempts to connect.
    """
    from dora_cli.coordinator import background
    from dora_config.access import endpoint
    from dora_config.spawn_argv import run_module
    from dora_daemon.agent.part_files import DEFAULT_LISTEN_PORT, is_running, state_directory

    fresh = endpoint(target.host, target.port)
    deadline = time.monotonic() + DAEMON_TIMEOUT
    while is_running(state_directory(None, DEFAULT_LISTEN_PORT)):
        if _default_daemons(fresh):
            return False
        if time.monotonic() > deadline:
            raise background.NotStarted(
                f"a daemon runs on this machine and has not connected to the coordinator at "
                f"{target} within {DAEMON_TIMEOUT:g} s; if it belongs to another coordinator, end "
                "it, or start a second one with `dora daemon --local-listen-port PORT`"
            )
        time.sleep(0.1)
    arguments = ["--coordinator-addr", target.host, "--coordinator-port", str(target.port)]
    process = background.start("daemon", [*run_module("dora_daemon.command"), *arguments])
    process.wait_until(lambda: _default_daemons(fresh) > 0, within=DAEMON_TIMEOUT)
    return True
