"""Options of commands that use a coordinator, and the client that they select."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli.coordinator import completion
from dora_cli.options import duration

if TYPE_CHECKING:
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_config.cluster.models import Coordinator

CoordinatorAddr = Annotated[
    str | None,
    typer.Option(
        "--coordinator-addr",
        metavar="IP",
        help="Address of the coordinator, also as IP:PORT (default 127.0.0.1; env "
        "DORA_COORDINATOR_ADDR).",
    ),
]
CoordinatorPort = Annotated[
    int | None,
    typer.Option(
        "--coordinator-port",
        min=1,
        max=65535,
        metavar="PORT",
        help="Port of the coordinator (default 6013; env DORA_COORDINATOR_PORT).",
    ),
]
_RUNNING_HELP = "UUID or name; optional when only one dataflow runs."
DataflowArgument = Annotated[
    str | None,
    typer.Argument(
        autocompletion=completion.running_dataflows, metavar="[DATAFLOW]", help=_RUNNING_HELP
    ),
]
DataflowOption = Annotated[
    str | None,
    typer.Option(
        "--dataflow",
        "-d",
        autocompletion=completion.running_dataflows,
        metavar="DATAFLOW",
        help=_RUNNING_HELP,
    ),
]
NodeArgument = Annotated[
    str, typer.Argument(autocompletion=completion.nodes, metavar="NODE", help="Id of the node.")
]
DataflowName = Annotated[
    str | None,
    typer.Option(
        "--name", "-n", autocompletion=completion.running_dataflows, help="Name of the dataflow."
    ),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Kill the nodes at once.")]
Grace = Annotated[
    float | None,
    duration(
        "--grace",
        "--grace-duration",
        help="Time from STOP to SIGTERM (default 10s); SIGKILL follows after half that time.",
    ),
]


def is_named(addr: str | None, port: int | None) -> bool:
    """Return whether an option or DORA_COORDINATOR_ADDR names the coordinator."""
    return addr is not None or port is not None or bool(os.environ.get("DORA_COORDINATOR_ADDR"))


def connect(addr: str | None, port: int | None, *, or_here: bool = False) -> CoordinatorClient:
    """Return a client, which connects with its first request.

    ``or_here``: unless an option names the coordinator, it connects now. If none answers, and a
    daemon or dataflows without a connection to their coordinator run on this machine, its
    requests are about these.
    """
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_cli.coordinator.errors import CoordinatorUnreachable
    from dora_config.access import endpoint

    client = CoordinatorClient(endpoint(addr, port))
    if or_here and addr is None and port is None:
        try:
            client.connect()
        except CoordinatorUnreachable:
            from dora_daemon.process_tree.daemon_entry import away_daemons, away_runs

            if not (away_runs() or away_daemons()):
                raise
            from dora_cli.coordinator.local_runs import client_of_this_machine

            return client_of_this_machine()
    return client


@contextmanager
def place_in(
    file: Path | None, coordinator: Coordinator | None, addr: str | None, port: int | None
) -> Iterator[tuple[str | None, int | None]]:
    """Yield the address and port of a cluster file's coordinator, or of its successor.

    Options win. If the block cannot reach the coordinator of the file, its error advises `dora
    cluster up`.
    """
    from dora_cli.coordinator.errors import CoordinatorUnreachable
    from dora_config.access import current_place

    if file is None or coordinator is None or addr is not None:
        yield addr, port or (None if coordinator is None else coordinator.port)
        return
    try:
        yield current_place(coordinator.addr, port or coordinator.port)
    except CoordinatorUnreachable as error:
        raise error.of_file(file) from None


def _coordinator_of(file: Path | None) -> Coordinator | None:
    """Return the coordinator of a cluster file; None for a file of only `dataflows`."""
    if file is None:
        return None
    from dora_config.cluster.loader import load_cluster_of

    known = load_cluster_of(file)
    return None if known is None else known.coordinator


def connect_now(addr: str | None, port: int | None, *, or_here: bool = False) -> CoordinatorClient:
    """Return a connected client, as `connect`; raises CoordinatorUnavailable."""
    client = connect(addr, port, or_here=or_here)
    client.connect()
    return client


@contextmanager
def connect_of(
    file: Path | None, addr: str | None, port: int | None
) -> Iterator[CoordinatorClient]:
    """Yield a client of a cluster or fleet file's coordinator, unless options name another one."""
    with (
        place_in(file, _coordinator_of(file), addr, port) as (at, at_port),
        connect(at, at_port) as client,
    ):
        yield client


def chosen_dataflow(text: str | None, name: str | None) -> str | None:
    """Return the argument or the value of `--name`, None without both."""
    if text is not None and name is not None:
        raise typer.BadParameter("give the dataflow as an argument or with --name, not both")
    return name if text is None else text


def require_one_end(grace: float | None, *, force: bool) -> None:
    """Raise BadParameter for `--force` with `--grace`."""
    if force and grace is not None:
        raise typer.BadParameter("--force and --grace cannot be used together")
