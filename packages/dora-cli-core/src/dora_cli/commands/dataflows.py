"""Dataflows of a coordinator: `dora start`, `stop`, `restart`, `list`, `clean`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dora_cli import dataflow_file, options, output
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    DataflowArgument,
    DataflowName,
    Force,
    Grace,
    chosen_dataflow,
    connect,
    require_one_end,
)
from dora_cli.errors import CommandFailed
from dora_config.protocol.reports import (
    DataflowSummary,
    ForgetEnded,
    ListDataflows,
    RestartDataflow,
    RestartSummary,
    StopDataflow,
)
from dora_config.yaml.quantities import show_age

if TYPE_CHECKING:
    from pathlib import Path

    from dora_cli.coordinator.client import CoordinatorClient
    from dora_cli.live.watching import NodeWatcher
    from dora_cli.page import PageSource
    from dora_config.protocol.dataflow import DataflowSpec, StartDataflow, StartTriggered


MAX_NAME = 256
"""Most characters of the name of a dataflow."""


def parse_name(text: str) -> str:
    """Return a valid name of a dataflow; raises ValueError."""
    if not text or len(text) > MAX_NAME or not text.isprintable():
        raise ValueError(f"{text[:32]!r}: a name has 1 to {MAX_NAME} printable characters")
    return text


StartName = Annotated[
    str | None,
    typer.Option(
        "--name",
        "-n",
        parser=options.checked(parse_name),
        metavar="TEXT",
        help="Name of the dataflow.",
    ),
]
Attach = Annotated[
    bool | None,
    typer.Option(
        "--attach/--detach",
        help="Show logs until the end (the default on a terminal), or return at once.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show where each node would run, without starting it.")
]
AllowUnlinked = Annotated[
    bool,
    typer.Option(
        "--allow-unlinked",
        help="Start even if machines that exchange data cannot reach each other.",
    ),
]
WhenOffline = Annotated[
    Literal["run", "wait"],
    typer.Option(
        "--offline",
        help="What a machine does with its nodes after a boot while the coordinator "
        "is away: start them alone, or wait.",
    ),
]


def start(
    path: options.DataflowFile,
    name: StartName = None,
    attach: Attach = None,
    dry_run: DryRun = False,
    allow_unlinked: AllowUnlinked = False,
    offline: WhenOffline = "run",
    uv: options.Uv = False,
    debug: options.Debug = False,
    env: options.EnvPairs = None,
    exit_when_nodes_finish: options.ExitWhenNodesFinish = None,
    watch: options.Watch = False,
    ui: options.Ui = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Start a dataflow on the daemons of a coordinator.

    Sends and builds the code of nodes with `distribute: http` or `scp`; other nodes must be built
    before with `dora build`.

    With --attach, Ctrl-C stops the dataflow, a second one kills it; --watch implies it. With --ui
    and --detach, Ctrl-C ends the page only.
    """
    with connect(coordinator_addr, coordinator_port) as client:
        if watch and attach is False:
            raise typer.BadParameter("--watch runs until the dataflow ends; remove --detach")
        overrides = options.env_overrides(env)
        finish = options.optional_boolean(exit_when_nodes_finish)

        from dora_cli.coordinator.start_spec import make_spec
        from dora_config.protocol.dataflow import PlanDataflow, StartDataflow

        spec = make_spec(
            dataflow_file.load(path),
            name=name,
            uv=uv,
            debug=debug or ui,
            env_overrides=overrides,
            exit_when_nodes_finish=finish,
            allow_unlinked=allow_unlinked,
            offline=offline,
        )
        if dry_run:
            plan = client.request(PlanDataflow(spec=spec))
            rows = [(one.node, one.daemon, one.reason) for one in plan.nodes]
            output.table(("NODE", "DAEMON", "BECAUSE"), rows)
            return
        watcher = _watcher_of(path, spec) if watch else None
        uuid = start_dataflow(client, deliver_code(client, StartDataflow(spec=spec)))
        attached = watch or (attach if attach is not None else sys.stdin.isatty())
        page = None
        if ui:
            from dora_cli.page import PageSource, show

            page = PageSource(client.endpoint.host, client.endpoint.port, dataflow=uuid)
        if attached:
            _follow(client, uuid, page, watcher)
        elif page is not None:
            show(page)


def _watcher_of(path: Path, spec: DataflowSpec) -> NodeWatcher:
    from dora_cli.live.watched_start import make_watcher

    return make_watcher(path, spec)


def _follow(
    client: CoordinatorClient, uuid: str, page: PageSource | None, watcher: NodeWatcher | None
) -> None:
    """Show logs until the end; raises CommandFailed if the dataflow failed."""
    from dora_cli.logs.attached import follow

    with ExitStack() as resources:
        if page is not None:
            from dora_cli.page import beside

            resources.enter_context(beside(page))
        if watcher is not None:
            from dora_cli.live.watched_start import watching

            resources.enter_context(watching(client.endpoint, uuid, watcher))
        if not follow(client, uuid):
            raise CommandFailed


def deliver_code(client: CoordinatorClient, request: StartDataflow) -> StartDataflow:
    """Deliver the code of nodes with `distribute: http` or `scp`; return the request for it."""
    if all(node.deploy.distribute == "local" for node in request.spec.resolved.nodes):
        return request
    from dora_cli.build.remote import deliver

    return request.model_copy(update={"spec": deliver(client, request.spec)})


def start_dataflow(client: CoordinatorClient, request: StartDataflow) -> str:
    """Start a dataflow and return its UUID; raises RequestFailed and CommandFailed."""
    from dora_cli.coordinator.errors import RequestFailed
    from dora_cli.logs.ended_report import report_ended

    def show(progress: StartTriggered) -> None:
        if progress.waits_for is not None:
            output.remark(f"waiting for {progress.waits_for}")
        else:
            output.write(f"dataflow start triggered: {progress.uuid}")

    try:
        started = client.follow(request, show)
    except RequestFailed as failed:
        if failed.ended is None or not failed.ended.nodes:
            raise
        output.failure(str(failed))
        report_ended(failed.ended, with_reason=False)
        raise CommandFailed from None
    for warning in started.warnings:
        output.warn(warning)
    output.write(f"dataflow started: {started.uuid}")
    return started.uuid


def stop(
    dataflow: DataflowArgument = None,
    name: DataflowName = None,
    every: Annotated[bool, typer.Option("--all", help="All running dataflows.")] = False,
    grace: Grace = None,
    force: Force = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop a dataflow and wait until it has ended; the exit code is 1 if it failed."""
    from dora_cli.coordinator.errors import RequestFailed
    from dora_cli.logs.ended_report import label, report_ended

    with connect(coordinator_addr, coordinator_port, or_here=True) as client:
        chosen = chosen_dataflow(dataflow, name)
        if every and chosen is not None:
            raise typer.BadParameter("--all cannot be used together with a dataflow")
        require_one_end(grace, force=force)
        wanted = StopDataflow(dataflow=chosen, all=every, grace=grace, force=force)
        for row in client.request(ListDataflows()).dataflows:
            absent = row.status == "Degraded" and "no connection to" in (row.reason or "")
            if absent and (every or chosen in (None, row.uuid, row.name)):
                output.remark(f"{row.name or row.uuid}: {row.reason}: waiting for it")
        try:
            stopped = client.request(wanted).dataflows
        except RequestFailed as problem:
            if problem.code == "nothing_runs":
                output.write(str(problem))
                return
            raise
        ok = True
        for ended in stopped:
            output.write(f"dataflow stopped: {label(ended.uuid, ended.name)}")
            ok = report_ended(ended) and ok
        if not ok:
            raise CommandFailed


def restart(
    dataflow: DataflowArgument = None,
    name: DataflowName = None,
    grace: Grace = None,
    force: Force = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop a dataflow and start it again as the coordinator has stored it."""
    with connect(coordinator_addr, coordinator_port) as client:
        require_one_end(grace, force=force)
        chosen = chosen_dataflow(dataflow, name)
        answer = client.request(RestartDataflow(dataflow=chosen, grace=grace, force=force))
        for warning in answer.warnings:
            output.warn(warning)
        output.write(f"dataflow restarted: {answer.old} -> {answer.new}")


GB = 1024**3
ENDED_SHOWN = 3600.0
"""Seconds for which an ended dataflow is listed by default."""


StatusChoice = Literal["running", "finished", "failed"]
"""Values of `--status`; `running` means not ended."""


def list_(
    output_format: options.Output = "table",
    status: Annotated[
        StatusChoice | None, typer.Option("--status", help="Only with this status.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="TEXT", help="Only names that contain this text."),
    ] = None,
    sort_by: Annotated[
        Literal["cpu", "memory"] | None, typer.Option("--sort-by", help="Sort, largest first.")
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
        found = client.request(ListDataflows()).dataflows
        rows = selected(found, status=status, name=name, everything=everything)
        if sort_by is not None:
            rows.sort(key=lambda row: row.cpu if sort_by == "cpu" else row.memory)
            rows.reverse()
        print_dataflows(rows, output_format, quiet=quiet)


def print_dataflows(
    rows: list[DataflowSummary], output_format: options.TableFormat, *, quiet: bool
) -> None:
    """Print dataflows as a table, as JSON lines, or their UUIDs only."""
    if quiet:
        for row in rows:
            output.write(row.uuid)
    elif output_format == "json":
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
    state = row.status.lower() if row.status in ("Finished", "Failed") else "running"
    return status in (None, state) and (name is None or name in (row.name or ""))


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
        facts["last_restart"] = row.last_restart.model_dump(exclude_none=True)
    if row.last_recovery is not None:
        facts["recoveries"] = row.recoveries
        facts["last_recovery"] = row.last_recovery.model_dump(exclude_none=True)
    if row.links:
        facts["links"] = [link.model_dump(exclude={"dataflow"}) for link in row.links]
    return facts


def _as_cells(row: DataflowSummary) -> tuple[object, ...]:
    cpu, memory = f"{row.cpu:.1f}%", f"{row.memory / GB:.2f} GB"
    return (row.uuid, row.name or "", row.status, row.nodes, cpu, memory)


def clean(
    output_format: options.Output = "table",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print UUIDs only.")] = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Remove ended dataflows from the list."""
    with connect(coordinator_addr, coordinator_port) as client:
        removed = client.request(ForgetEnded()).dataflows
        if quiet:
            for row in removed:
                output.write(row.uuid)
        elif output_format == "json":
            for row in removed:
                output.json_line({"uuid": row.uuid, "name": row.name, "status": row.status})
        else:
            rows = [(row.uuid, row.name or "", row.status) for row in removed]
            output.table(("UUID", "Name", "Status"), rows)
