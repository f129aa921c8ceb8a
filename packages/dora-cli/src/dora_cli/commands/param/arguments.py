"""Arguments and look-ups that several `dora param` commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli.coordinator import calls

if TYPE_CHECKING:
    from dora_cli.coordinator.client import Client

Key = Annotated[str, typer.Argument(metavar="KEY", help="Name of the parameter.")]


def parameters(client: Client, dataflow: str | None, node: str) -> dict[str, object]:
    """Return the parameters of a running node."""
    from dora_config.protocol.runner import GetParams, Params

    return dict(calls.call(client, dataflow, node, GetParams(node=node), Params).values)
