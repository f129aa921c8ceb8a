"""`dora run`."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dora_cli import dataflow_file, options, output
from dora_cli.build.local import LockChoice, needs_build, prepare_nodes
from dora_cli.errors import CommandFailed
from dora_cli.logs.log_options import LogFilterText, LogFormat, LogLevel, LogStyle, node_levels
from dora_config.dataflow.variables import ALLOW_SHELL
from dora_config.linux import require_linux
from dora_config.yaml.suggest import closest

if TYPE_CHECKING:
    from dora_config.dataflow.loader import LoadedDataflow
    from dora_config.dataflow.resolved import NodeLocation
    from dora_daemon.runner.service import Runner

    Beside = Callable[[Runner], Coroutine[Any, Any, None]]
    """Task that runs beside the runner."""

StopAfter = Annotated[
    float | None,
    options.duration(
        "--stop-after", help="Stop gracefully after this time, such as 30, 10s, 1h30m or 500ms."
    ),
]
AllowShellNodes = Annotated[
    bool,
    typer.Option(
        "--allow-shell-nodes",
        envvar=ALLOW_SHELL,
        help="Allow nodes with `path: shell`, which run any command.",
    ),
]


def run(
    source: Annotated[
        str, typer.Argument(metavar="PATH_OR_URL", help="The dataflow file or its URL.")
    ],
    uv: options.Uv = False,
    stop_after: StopAfter = None,
    log_level: LogLevel = "stdout",
    log_format: LogStyle = "pretty",
    log_filter: LogFilterText = None,
    allow_shell_nodes: AllowShellNodes = False,
    debug: options.Debug = False,
    env: options.EnvPairs = None,
    exit_when_nodes_finish: options.ExitWhenNodesFinish = None,
    locked: options.Locked = False,
    write_lockfile: options.WriteLockFile = False,
    lockfile: options.LockFile = None,
    offline: options.Offline = False,
    verbose: options.Verbose = False,
    watch: options.Watch = False,
    ui: options.Ui = False,
) -> None:
    """Build a dataflow and run it on this machine until it ends.

    Needs no coordinator. Ctrl-C stops the nodes gracefully, a second one kills them. The exit
    code is 1 if a node failed.
    """
    lock = LockChoice.from_options(locked=locked, write=write_lockfile, path=lockfile)
    overrides = options.env_overrides(env)
    levels = node_levels(log_filter)
    finish = options.optional_boolean(exit_when_nodes_finish)
    path = dataflow_file.local_path(source)
    loaded = dataflow_file.load(path)
    _note_unknown_nodes(levels, [node.id for node in loaded.resolved.nodes])
    places = prepare(loaded, uv=uv, offline=offline, lock=lock, verbose=verbose)
    settings = RunSettings(
        uv=uv,
        stop_after=stop_after,
        log_level=log_level,
        log_format=log_format,
        log_levels=levels,
        allow_shell=allow_shell_nodes,
        debug=debug or ui,
        env_overrides=overrides,
        exit_when_nodes_finish=finish,
        watch=watch,
    )
    with ExitStack() as stack:
        run_loaded(loaded, places, settings, partial(_show_page, stack) if ui else None)


def _show_page(stack: ExitStack, directory: Path, dataflow_id: str) -> None:
    from dora_cli.page import PageSource, beside

    stack.enter_context(beside(PageSource(local=True, dataflow=dataflow_id)))


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Settings of a run in the foreground."""

    uv: bool = False
    stop_after: float | None = None
    log_level: str = "stdout"
    log_format: LogFormat = "pretty"
    log_levels: Mapping[str, str] = field(default_factory=dict)
    allow_shell: bool = False
    debug: bool = False
    env_overrides: Mapping[str, str] = field(default_factory=dict)
    exit_when_nodes_finish: bool | None = None
    watch: bool = False
    """Replace a node when its files change."""


def run_loaded(
    loaded: LoadedDataflow,
    places: dict[str, NodeLocation],
    settings: RunSettings,
    before_start: Callable[[Path, str], None] | None = None,
    beside: Beside | None = None,
) -> None:
    """Run to the end; raises CommandFailed if a node failed.

    ``before_start`` gets the runner's directory and the dataflow's id before any node starts.
    ``beside`` runs as a task until the dataflow ends.
    """
    from dora_cli.logs.run_report import RunPrinter, report_result
    from dora_config.protocol.run_plan import LogSettings, RunPlan
    from dora_daemon.out_dir import OUT_DIR, folder, prepare_out_dir
    from dora_daemon.runner import foreground

    resolved = loaded.resolved
    if settings.debug:
        resolved = resolved.model_copy(update={"debug_inspection": True})
    finish = settings.exit_when_nodes_finish
    level, levels = settings.log_level, dict(settings.log_levels)
    plan = RunPlan(
        dataflow_id=str(uuid.uuid4()),
        name=resolved.name,
        resolved=resolved,
        descriptor=loaded.descriptor_dict,
        working_dir=str(loaded.directory),
        places=places,
        env_overrides=dict(settings.env_overrides),
        uv=settings.uv,
        allow_shell=settings.allow_shell,
        stop_after=settings.stop_after,
        exit_when_nodes_finish=resolved.exit_when_nodes_finish if finish is None else finish,
        logs=LogSettings.model_validate({"level": level, "per_node": levels}),
    )
    printer = RunPrinter(settings.log_format, level)
    if settings.watch:
        from dora_cli.live.watched_run import make_watcher, watch

        beside = partial(watch, watcher=make_watcher(loaded.path.absolute(), plan), plan=plan)

    # The dataflow also runs without log files; each reports why it cannot be written.
    with suppress(OSError):
        prepare_out_dir(folder(loaded.directory, OUT_DIR))

    def ready(directory: Path) -> None:
        assert before_start is not None
        before_start(directory, plan.dataflow_id)

    result = foreground.run(
        plan,
        on_event=printer.show,
        on_signal=output.limit_waits,
        lossless=not sys.stdout.isatty(),
        before_start=None if before_start is None else ready,
        beside=beside,
    )
    if not report_result(result):
        raise CommandFailed


def _note_unknown_nodes(filtered: Iterable[str], known: list[str]) -> None:
    for name in filtered:
        if name not in known:
            meant = closest(name, known)
            output.remark(f'note: unknown node "{name}" in --log-filter{meant}')


def prepare(
    loaded: LoadedDataflow, *, uv: bool, offline: bool, lock: LockChoice, verbose: bool
) -> dict[str, NodeLocation]:
    """Build the nodes that need it; return working directory and interpreter of each.

    Raises NeedsLinux.
    """
    require_linux()
    if loaded.resolved.uses_deploy:
        output.remark("note: `deploy` is ignored by `dora run`; all nodes run on this machine")
    if not needs_build(loaded):
        return {}
    session = prepare_nodes(
        loaded, loaded.directory, uv=uv, offline=offline, lock=lock, verbose=verbose
    )
    return session.places(loaded.directory)
