"""Names that a shell completes: dataflows, nodes and outputs that the coordinator lists.

Without an answer of the coordinator within a short time, the list is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from dora_config.errors import DoraError
from dora_config.protocol.envelope import Message, Query
from dora_config.protocol.reports import DataflowSummary, ListDataflows, ListNodes

A = TypeVar("A", bound=Message)

TIMEOUT: Final = 2.0
"""Seconds for the coordinator to answer."""

Items = list[tuple[str, str]]
"""Words, each with the text that shells show beside it."""


def running_dataflows(ctx: Any) -> Items:
    """Return the dataflows that have not ended."""
    return _names(row for row in _dataflows(ctx) if row.status not in ("Finished", "Failed"))


def all_dataflows(ctx: Any) -> Items:
    """Return all dataflows that the coordinator stores."""
    return _names(_dataflows(ctx))


def nodes(ctx: Any) -> Items:
    """Return the nodes of the dataflow in the command line, or of all running ones."""
    found = _answer(ctx, ListNodes(dataflow=_dataflow_of(ctx)))
    return _offered([] if found is None else [(node.node, node.status) for node in found.nodes])


def topics(ctx: Any) -> Items:
    """Return the outputs of the dataflow in the command line, or of all running ones."""
    from dora_config.protocol.control import DescribeDataflow

    chosen = _dataflow_of(ctx)
    names = [chosen] if chosen is not None else [word for word, _ in running_dataflows(ctx)]
    items: Items = []
    for name in names:
        found = _answer(ctx, DescribeDataflow(dataflow=name))
        for node in () if found is None else found.spec.resolved.nodes:
            items += [(f"{node.id}/{output}", name) for output in node.outputs]
    return _offered(items)


def _dataflows(ctx: Any) -> Sequence[DataflowSummary]:
    found = _answer(ctx, ListDataflows())
    return () if found is None else found.dataflows


def _names(rows: Iterable[DataflowSummary]) -> Items:
    # several dataflows may have one name, which selects the newest
    return _offered(list({row.name or row.uuid: row.status for row in rows}.items()))


def _offered(items: Items) -> Items:
    """Return the items without control characters: shells print them unchanged."""
    return [item for item in items if "".join(item).isprintable()]


def _dataflow_of(ctx: Any) -> str | None:
    chosen = ctx.params.get("dataflow")
    return chosen if isinstance(chosen, str) else None


def _answer(ctx: Any, query: Query[A]) -> A | None:
    """Return the answer to a query; None if it fails."""
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_config.access import endpoint

    try:
        at = endpoint(ctx.params.get("coordinator_addr"), ctx.params.get("coordinator_port"))
        with CoordinatorClient(at, timeout=TIMEOUT) as client:
            return client.request(query)
    except (DoraError, OSError):
        return None
