"""Sends files to machines over SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dora_config.errors import DoraError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dora_cli.client import Client
    from dora_cli.shipping.collecting import Collected
    from dora_config.protocol.dataflow import DataflowSpec


def push(client: Client, spec: DataflowSpec, parts: Mapping[str, Collected]) -> None:
    """Have the files of these nodes on the machines that they will run on."""
    raise DoraError("`distribute: scp` comes with the next change; use `distribute: http`")
