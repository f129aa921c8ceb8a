"""`dora list`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect
from dora_config.protocol.rest import paths

if TYPE_CHECKING:
    from dora_config.protocol.control import DataflowSummary, RestartSummary

GB = 1024**3
ENDED_SHOWN = 3600.0
"""Seconds for which an ended dataflow is listed by default."""


class StatusChoice(StrEnum):
    """Values of `--status`; `running` means not ended."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class SortChoice(StrEnum):
    """Values of `--sort-by`."""

    CPU = "cpu"
    MEMORY = "memory"


def main(
    output_format: options.Output = options.TableFormat.TABLE,
    status: Annotated[
        StatusChoice | None, typer.Option("--status", help="Only with this status.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="TEXT", help="Only names that contain this text."),
    ] = None,
    sort_by: Annotated[
        SortChoice | None, typer.Option("--sort-by", help="Sort, largest first.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print UUIDs only.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Include all that have ended.")
    ] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """List running dataflows and those that ended within the last hour.

    `--all`, `--status finished` and `failed` include those that ended earlier, and those with the
    name of a running one.
    """
    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        found: list[DataflowSummary] = client.get(paths.DATAFLOWS).dataflows
    rows = selected(found, status=status, name=name, everything=everything)
    if sort_by is not None:
        rows.sort(key=lambda row: row.cpu if sort_by is SortChoice.CPU else row.memory)
        rows.reverse()
    print_dataflows(rows, output_format, quiet=quiet)


def print_dataflows(
    rows: list[DataflowSummary], output_format: options.TableFormat, *, quiet: bool
) -> None:
    """Print dataflows as a table, as JSON lines, or their UUIDs only."""
    if quiet:
        for row in rows:
            output.write(row.uuid)
    elif output_format is options.TableFormat.JSON:
        for row in rows:
            output.json_line(_as_json(row))
    else:
        columns = ["UUID", "Name", "Status", "Nodes", "CPU", "Memory"]
        cells = [_as_cells(row) for row in rows]
        restarts = [restarts_text(row) for row in rows]
        if any(restarts):
            columns.append("Restarts")
            cells = [(*some, text) for some, text in zip(cells, restarts, strict=True)]
        output.table(columns, cells)
        for row in rows:
            if row.reason is not None:
                output.remark(f"{row.name or row.uuid}: {row.reason}")


def selected(
    found: Iterable[DataflowSummary],
    *,
    status: StatusChoice | None,
    name: str | None,
    everything: bool,
) -> list[DataflowSummary]:
    """Return the rows that match the options."""
    chosen = [row for row in found if _matches(row, status, name)]
    if everything or status is not None:
        return chosen
    running = {row.name for row in found if row.ended_ago is None and row.name}
    return [
        row
        for row in chosen
        if row.ended_ago is None or (row.ended_ago <= ENDED_SHOWN and row.name not in running)
    ]


def _matches(row: DataflowSummary, status: StatusChoice | None, name: str | None) -> bool:
    if name is not None and name not in (row.name or ""):
        return False
    match status:
        case StatusChoice.RUNNING:
            return row.status not in ("Finished", "Failed")
        case StatusChoice.FINISHED:
            return row.status == "Finished"
        case StatusChoice.FAILED:
            return row.status == "Failed"
        case None:
            return True


def restarts_text(row: DataflowSummary) -> str:
    """Return number, last cause and age of restarts and recoveries; empty if none."""
    texts = []
    if row.last_restart is not None:
        texts.append(_restarts("restarted", row.restarts, row.last_restart))
    elif row.restarts:
        texts.append(f"restarted {_times(row.restarts)}")
    if row.last_recovery is not None:
        texts.append(_restarts("recovered", row.recoveries, row.last_recovery))
    return "; ".join(texts)


def _restarts(what: str, count: int, last: RestartSummary) -> str:
    from dora_config.yaml.quantities import show_age

    cause = last.cause.splitlines()[0] if last.cause else "unknown"
    where = last.node or last.daemon
    return f"{what} {_times(count)}, last: {cause}, {show_age(last.ago)} ago ({where})"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _as_json(row: DataflowSummary) -> dict[str, object]:
    facts: dict[str, object] = {
        "uuid": row.uuid,
        "name": row.name,
        "status": row.status,
        "nodes": row.nodes,
        "cpu": round(row.cpu, 1),
        "memory": round(row.memory / GB, 3),
    }
    if row.reason is not None:
        facts["reason"] = row.reason
    if row.restarts:
        facts["restarts"] = row.restarts
    if row.last_restart is not None:
        facts["last_restart"] = _without_none(row.last_restart)
    if row.last_recovery is not None:
        facts["recoveries"] = row.recoveries
        facts["last_recovery"] = _without_none(row.last_recovery)
    if row.links:
        facts["links"] = [
            {key: value for key, value in vars(link).items() if key != "dataflow"}
            for link in row.links
        ]
    return facts


def _without_none(row: RestartSummary) -> dict[str, object]:
    return {key: value for key, value in vars(row).items() if value is not None}


def _as_cells(row: DataflowSummary) -> tuple[object, ...]:
    cpu, memory = f"{row.cpu:.1f}%", f"{row.memory / GB:.2f} GB"
    return (row.uuid, row.name or "", row.status, row.nodes, cpu, memory)
