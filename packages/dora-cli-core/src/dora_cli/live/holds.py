"""Waits for nodes that hold updates."""

from __future__ import annotations

import time

from dora_cli import output
from dora_cli.coordinator.client import CoordinatorClient
from dora_config.protocol.holds import HOLD_LIMIT
from dora_config.protocol.reports import ListNodes

HOLD_POLL = 0.5
"""Seconds between two checks whether a node still holds updates."""


def wait_for_release(client: CoordinatorClient, dataflow: str | None, node: str) -> None:
    """Wait while a node holds updates, up to HOLD_LIMIT, and print why."""
    deadline, noted = time.monotonic() + HOLD_LIMIT, None
    while time.monotonic() < deadline:
        rows = client.request(ListNodes(dataflow=dataflow)).nodes
        found = [row.held for row in rows if row.node == node]
        if len(found) != 1 or found[0] is None:  # the change reports that there are several
            return
        if found[0] != noted:
            noted = found[0]
            output.remark(waiting_text(node, noted))
        time.sleep(HOLD_POLL)


def waiting_text(node: str, held: str) -> str:
    return f'waiting up to {HOLD_LIMIT:g} s: node "{node}" holds updates: {held}'
