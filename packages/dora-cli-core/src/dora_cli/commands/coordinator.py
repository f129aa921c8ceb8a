"""The coordinator of this machine or of a cluster: `dora up`, `down`, `status`, `ui`."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect, is_named
from dora_cli.errors import CommandFailed
from dora_config.errors import DoraError
from dora_config.protocol.reports import ClusterReport, ClusterStatus, DaemonSummary

if TYPE_CHECKING:
    from dora_cli.coordinator.background import BackgroundProcess
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_config.access import Endpoint


COORDINATOR_TIMEOUT = 30.0
"""Seconds for a started coordinator to answer."""
DAEMON_TIMEOUT = 30.0
"""Seconds for a started daemon to connect."""
BACKLOG = 4096
"""Most connections that wait for the coordinator to accept them."""


def up(
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
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_cli.coordinator.errors import AccessDenied, CoordinatorUnreachable
    from dora_config.access import endpoint
    from dora_config.control_plane import Untrusted
    from dora_config.linux import require_linux

    require_linux()
    target = endpoint("127.0.0.1", coordinator_port)
    _warn_of_other_address(target)
    daemon = None
    try:
        with CoordinatorClient(target) as client:
            daemons = _default_daemons(client)
        output.write("coordinator: already running")
        if recreate_store:
            output.warn("the store is in use and was kept; run `dora down` before --recreate-store")
    except (AccessDenied, Untrusted) as error:
        raise _of_another_account(error, target) from None
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


def _of_another_account(error: DoraError, target: Endpoint) -> DoraError:
    """Return the error for a running coordinator that does not accept this account."""
    port = target.port % 65535 + 1
    return DoraError(
        f"{error}\n  for a coordinator of this account beside it, choose another port: "
        f"`dora up --coordinator-port {port}`, and DORA_COORDINATOR_PORT={port} for other commands"
    )


def _warn_of_other_address(target: Endpoint) -> None:
    """Warn if other commands use another coordinator because of DORA_COORDINATOR_ADDR."""
    elsewhere = os.environ.get("DORA_COORDINATOR_ADDR", target.host)
    if elsewhere not in (target.host, "localhost"):
        output.warn(
            f"DORA_COORDINATOR_ADDR is {elsewhere}: other commands will use the coordinator there, "
            f"not the one on this machine; give them --coordinator-addr {target.host}"
        )


def _default_daemons(client: CoordinatorClient) -> int:
    """Return the number of daemons without machine id. Raises what `CoordinatorClient` raises."""
    machines = client.request(ClusterStatus()).machines
    return sum(one.connected and one.machine_id is None for one in machines)


def _start_coordinator(target: Endpoint, *, recreate: bool) -> BackgroundProcess:
    """Start a coordinator.

    Its socket listens at once, so that clients wait until it accepts them, unless
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
        raise background.BackgroundNotStarted(
            f"cannot listen on {target}: {error.strerror}; choose another --coordinator-port"
        ) from error
    with listener:
        return background.start("coordinator", argv, stdin=listener.fileno())


def _wait_for_coordinator(process: BackgroundProcess, target: Endpoint) -> None:
    from dora_cli.coordinator.background import warn_unless_exported
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_cli.coordinator.errors import CoordinatorUnreachable
    from dora_config.access import endpoint

    def answers() -> bool:
        try:
            # reads the token again: the coordinator may have created it
            with CoordinatorClient(endpoint(target.host, target.port)) as client:
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
    from dora_cli.coordinator.background import BackgroundNotStarted
    from dora_cli.coordinator.client import CoordinatorClient

    deadline = time.monotonic() + DAEMON_TIMEOUT
    with CoordinatorClient(target) as client:
        while daemon is None and (daemon := _start_daemon(target)) is None:
            if _default_daemons(client):
                return False
            if time.monotonic() > deadline:
                raise BackgroundNotStarted(
                    f"a daemon runs on this machine and has not connected to the coordinator at "
                    f"{target} within {DAEMON_TIMEOUT:g} s; if it belongs to another coordinator, "
                    "end it, or start a second one with `dora daemon --local-listen-port PORT`"
                )
            time.sleep(0.1)
        daemon.wait_until(lambda: _default_daemons(client) > 0, within=DAEMON_TIMEOUT)
    return True


def down(
    force: Annotated[bool, typer.Option("--force", help="Also stop running dataflows.")] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Shut down the coordinator and its daemons; refused while dataflows run, unless forced."""
    from dora_config.protocol.control import Destroy

    with connect(coordinator_addr, coordinator_port) as client:
        left = client.request(Destroy(force=force)).left
        client.wait_until_gone()
        if left:
            names = ", ".join(f'"{daemon}"' for daemon in left)
            raise DoraError(
                f"the coordinator has ended, but these daemons did not answer: {names}; they and "
                "their nodes may still run. End them on their machines, or start the coordinator "
                "again: it stops those nodes when their daemons connect"
            )
        output.write("coordinator and daemons destroyed successfully")


def status(
    output_format: options.Output = "table",
    dataflow: Annotated[
        Path | None,
        typer.Option("--dataflow", metavar="PATH", help="Also check this dataflow file."),
    ] = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Check the coordinator and its daemons.

    The exit code is 1 if the coordinator does not answer, no daemon is connected, or the dataflow
    file is invalid.
    """
    from dora_cli.coordinator.errors import CoordinatorUnavailable, CoordinatorUnreachable
    from dora_cli.coordinator.machine_warnings import clock_warnings, plain_warnings
    from dora_config.access import endpoint

    report: ClusterReport | None = None
    problem: CoordinatorUnavailable | None = None
    try:
        with connect(coordinator_addr, coordinator_port) as client:
            report = client.request(ClusterStatus())
    except CoordinatorUnavailable as error:
        problem = error
    runs = not isinstance(problem, CoordinatorUnreachable)
    machines: Sequence[DaemonSummary] = report.machines if report else ()
    daemons = sum(one.connected for one in machines)
    as_json = output_format == "json"
    if as_json:
        at = endpoint(coordinator_addr, coordinator_port)
        output.json_line(_status_json(report, daemons, at, runs=runs))
    else:
        _print_status(report, machines, daemons, runs=runs)
    if problem is not None:
        output.remark(str(problem))
    for warning in (*clock_warnings(machines), *plain_warnings(machines)):
        output.warn(warning)
    valid = dataflow is None or _check_file(dataflow, as_json=as_json)
    if not daemons or not valid:
        output.failure("System check failed.")
        raise CommandFailed


def _print_status(
    report: ClusterReport | None, machines: Sequence[DaemonSummary], daemons: int, *, runs: bool
) -> None:
    if report is None:
        output.write(f"Coordinator: {'gives no report' if runs else 'not reachable'}")
        return
    lost = [one.daemon for one in machines if not one.connected and not one.ended]
    others = f"; not connected: {', '.join(lost)}" if lost else ""
    output.write(f"Coordinator: connected ({report.coordinator.release})")
    output.write(f"Daemons: {daemons or 'none'} connected{others}")
    output.write(f"Active dataflows: {report.active_dataflows}")
    for text in report.differences:
        output.write(f"  {text}")


def _check_file(dataflow: Path, *, as_json: bool) -> bool:
    """Print the problems of a dataflow file; return whether it is valid."""
    from dora_cli.diagnosis import check_dataflow

    valid = True
    for one in check_dataflow(dataflow):
        valid = valid and one.result != "FAIL"
        line = f"{one.result}  {one.subject}: {one.text}"
        if not as_json:
            output.write(line)
        elif one.result != "PASS":
            output.remark(line)
    return valid


def _status_json(
    report: ClusterReport | None, daemons: int, at: Endpoint, *, runs: bool
) -> dict[str, object]:
    """Return the report with the keys and values of dora-rs.

    ``runs``: a coordinator that gives no report accepted the connection, or is busy.
    """
    if report is None:
        return {
            "coordinator": {"status": "unknown" if runs else "not running"},
            "daemon": {"status": "unknown"},
            "active_dataflows": None,
        }
    return {
        "coordinator": {"status": "running", "address": str(at)},
        "daemon": {"status": "running" if daemons else "not running"},
        "active_dataflows": report.active_dataflows,
    }


def ui(
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65535, help="Port of the page on this computer; 0: any."),
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the link without opening a browser.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Allow no changes from the page.")
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Show the runs of `dora run` on this computer.")
    ] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show machines, dataflows, logs, images and plots in the browser.

    Serves a page on this computer only, until Ctrl-C. The printed link works once. If no
    coordinator is named or runs on this computer, the page shows its runs of `dora run`.
    """
    from dora_cli.page import PageSource, show
    from dora_config.access import endpoint

    if local and (coordinator_addr is not None or coordinator_port is not None):
        raise typer.BadParameter("--local cannot be used with the address of a coordinator")
    target = endpoint(coordinator_addr, coordinator_port)
    chosen = is_named(coordinator_addr, coordinator_port)
    source = PageSource(
        host=target.host,
        port=target.port,
        local=local or (not chosen and not _listens(target.host, target.port) and _has_runs()),
    )
    show(source, port=port, read_only=read_only, open_browser=not no_browser)


def _listens(host: str, port: int) -> bool:
    import socket

    try:
        socket.create_connection((host, port), 1.0).close()
    except OSError:
        return False
    return True


def _has_runs() -> bool:
    from dora_daemon.agent.local_runs import local_runs

    return bool(local_runs())
