"""`dora start`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dora_cli import dataflow_file, options, output
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect
from dora_cli.errors import CommandFailed

if TYPE_CHECKING:
    from pathlib import Path

    from dora_cli.coordinator.client import Client
    from dora_cli.live.watching import NodeWatcher
    from dora_cli.ui.page_process import Source
    from dora_config.protocol.dataflow import DataflowSpec, StartDataflow, StartTriggered

MAX_NAME = 256


def parse_name(text: str) -> str:
    """Return a valid name of a dataflow; raises ValueError."""
    if not text or len(text) > MAX_NAME or not text.isprintable():
        raise ValueError(f"{text[:32]!r}: a name has 1 to {MAX_NAME} printable characters")
    return text


Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        "-n",
        metavar="TEXT",
        parser=options.checked(parse_name),
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
Offline = Annotated[
    Literal["run", "wait"],
    typer.Option(
        "--offline",
        help="What a machine does with its nodes after a boot while the coordinator is away: start "
        "them alone, or wait.",
    ),
]

SETTINGS = {"cls": options.OptionalValues}


def main(
    path: options.DataflowFile,
    name: Name = None,
    attach: Attach = None,
    dry_run: DryRun = False,
    allow_unlinked: AllowUnlinked = False,
    offline: Offline = "run",
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
    if watch and attach is False:
        raise typer.BadParameter("--watch runs until the dataflow ends; remove --detach")
    overrides = options.env_overrides(env)
    finish = options.optional_boolean(exit_when_nodes_finish)
    loaded = dataflow_file.load(path)

    from dora_cli.coordinator.start_spec import make_spec
    from dora_config.protocol.dataflow import StartDataflow

    spec = make_spec(
        loaded,
        name=name,
        uv=uv,
        debug=debug or ui,
        env_overrides=overrides,
        exit_when_nodes_finish=finish,
        allow_unlinked=allow_unlinked,
        offline=offline,
    )
    request = StartDataflow(spec=spec, dry_run=dry_run)
    with connect(coordinator_addr, coordinator_port) as client:
        if dry_run:
            _show_placement(client, request)
            return
        watcher = _watcher_of(path, spec) if watch else None
        uuid = start_dataflow(client, deliver_code(client, request))
        attached = watch or (attach if attach is not None else sys.stdin.isatty())
        page = None
        if ui:
            from dora_cli.ui.page_process import Source, show

            page = Source(client.endpoint.host, client.endpoint.port, dataflow=uuid)
        if attached:
            _follow(client, uuid, page, watcher)
    if page is not None and not attached:
        show(page)


def _watcher_of(path: Path, spec: DataflowSpec) -> NodeWatcher:
    from dora_cli.live.watched_start import make_watcher

    return make_watcher(path, spec)


def _follow(client: Client, uuid: str, page: Source | None, watcher: NodeWatcher | None) -> None:
    """Show logs until the end; raises CommandFailed if the dataflow failed."""
    from dora_cli.logs.attached import follow

    with ExitStack() as resources:
        if page is not None:
            from dora_cli.ui.page_process import page_beside

            resources.enter_context(page_beside(page))
        if watcher is not None:
            from dora_cli.live.watched_start import watching

            resources.enter_context(watching(client.endpoint, uuid, watcher))
        if not follow(client, uuid):
            raise CommandFailed


def deliver_code(client: Client, request: StartDataflow) -> StartDataflow:
    """Deliver the code of nodes with `distribute: http` or `scp`; return the request for it."""
    if all(node.deploy.distribute == "local" for node in request.spec.resolved.nodes):
        return request
    from dora_cli.build.remote import deliver

    return request.model_copy(update={"spec": deliver(client, request.spec)})


def start_dataflow(client: Client, request: StartDataflow) -> str:
    """Start a dataflow and return its UUID; raises RequestFailed and CommandFailed."""
    from dora_cli.coordinator.errors import RequestFailed
    from dora_cli.logs.ended_report import report_ended
    from dora_config.protocol.dataflow import Started, StartTriggered

    def show(progress: StartTriggered) -> None:
        if progress.waits_for is not None:
            output.remark(f"waiting for {progress.waits_for}")
        else:
            output.write(f"dataflow start triggered: {progress.uuid}")

    try:
        started = client.request(request, Started, {StartTriggered: show})
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


def _show_placement(client: Client, request: StartDataflow) -> None:
    from dora_config.protocol.dataflow import PlacementPlan

    plan = client.request(request, PlacementPlan)
    rows = [(one.node, one.daemon, one.reason) for one in plan.nodes]
    output.table(("NODE", "DAEMON", "BECAUSE"), rows)
