"""Options of commands that talk to a coordinator, and the client they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dora_cli.coordinator.client import Client
    from dora_config.protocol.control import DataflowRef

Addr = Annotated[
    str | None,
    typer.Option(
        "--coordinator-addr",
        metavar="IP",
        help="Where the coordinator is (default 127.0.0.1; env DORA_COORDINATOR_ADDR).",
        show_default=False,
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--coordinator-port",
        metavar="PORT",
        min=1,
        max=65535,
        help="Port of the coordinator (default 6013; env DORA_COORDINATOR_PORT).",
        show_default=False,
    ),
]
Chosen = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATAFLOW]",
        help="UUID or name; may be left out when only one runs.",
        show_default=False,
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", "-n", help="The dataflow by name.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Kill the nodes at once.")]
Grace = Annotated[
    str | None,
    typer.Option(
        "--grace-duration",
        metavar="DURATION",
        help="Time from STOP to SIGTERM (default 10s); SIGKILL half as long after.",
        show_default=False,
    ),
]


def client(addr: str | None, port: int | None) -> Client:
    """A connected client; raises what `Client` raises."""
    from dora_cli.coordinator.client import Client
    from dora_config.access import endpoint

    return Client(endpoint(addr, port))


def reference(text: str | None, name: str | None = None) -> DataflowRef:
    """A UUID or a name as the coordinator understands it; both None: the only one that runs."""
    from uuid import UUID

    from dora_config.protocol.control import DataflowRef

    if text is not None and name is not None:
        raise typer.BadParameter("give the dataflow once: as an argument or with --name")
    if text is None:
        return DataflowRef(name=name)
    try:
        return DataflowRef(uuid=str(UUID(text)))
    except ValueError:
        return DataflowRef(name=text)


def grace_seconds(text: str | None, *, force: bool) -> float | None:
    """The value of `--grace-duration`; a usage error beside `--force` or when it is wrong."""
    from dora_cli.options import checked
    from dora_config.yaml.quantities import parse_duration

    if text is None:
        return None
    if force:
        raise typer.BadParameter("--force and --grace-duration exclude each other")
    return checked(parse_duration)(text)
