"""`dora record`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from dora_cli import dataflow_file, options, output
from dora_cli.build.local import LockChoice
from dora_cli.command import Command, function_command
from dora_cli.commands.run import AllowShellNodes, RunSettings, StopAfter, prepare, run_loaded
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect_now, is_named
from dora_cli.errors import CommandFailed
from dora_config.errors import DoraError
from dora_config.yaml.quantities import parse_size
from dora_recordings.plugin import HEADING

if TYPE_CHECKING:
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_recordings.client.starting import RecordSettings


class RecordCommand(Command):
    """Command that names the replacements of options of dora-rs."""

    unsupported: ClassVar = {
        ("record", "--name"): "`record --name` is not needed: `dora record --attach DATAFLOW` "
        "records a running dataflow",
        ("record", "--proxy"): "`record --proxy` is not needed: `dora record --attach DATAFLOW -o "
        "FILE` records on the machines of the dataflow, and writes FILE here at the end",
        ("record", "--output-yaml"): "`record --output-yaml` is not supported: recording adds no "
        "node to a dataflow; `dora expand` prints what runs",
        ("record", "--queue-size"): "`record --queue-size` is not needed: the recorder needs no "
        "queue length, and counts messages that it could not record",
    }


def _size(text: str) -> int:
    """Bytes of a size above zero; raises ValueError."""
    size = parse_size(text)
    if size <= 0:
        raise ValueError(f"{text!r}: expected a size above 0")
    return size


def _size_option(name: str, help: str) -> Any:
    return typer.Option(name, metavar="SIZE", parser=options.checked(_size), help=help)


RunFile = Annotated[
    Path | None, typer.Argument(metavar="[PATH]", help="The dataflow file to run and record.")
]
Attached = Annotated[
    str | None,
    typer.Option(
        "--attach",
        metavar="DATAFLOW",
        help="Record a running dataflow instead, by its name or UUID.",
    ),
]
Target = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Default recording_<date>_<time>.mcap; for several machines none, see "
        "`dora recording fetch`.",
    ),
]
Topics = Annotated[
    str,
    typer.Option(
        "--topics", metavar="PATTERN,..", help="Outputs such as camera/image,*/pose; default all."
    ),
]
MaxSize = Annotated[
    int | None, _size_option("--max-size", "End the recording at this size, such as 2GB.")
]
MaxDuration = Annotated[
    float | None,
    options.duration(
        "--max-duration",
        parse=options.positive_duration,
        help="End the recording this long after its first message.",
    ),
]
SplitSize = Annotated[int | None, _size_option("--split-size", "Begin another file at this size.")]
SplitDuration = Annotated[
    float | None,
    options.duration(
        "--split-duration",
        parse=options.positive_duration,
        help="Begin another file after this time.",
    ),
]
OnCluster = Annotated[
    bool,
    typer.Option("--cluster", help="Start PATH on the daemons of a coordinator, as `dora start`."),
]


def _record(
    path: RunFile = None,
    attach: Attached = None,
    target: Target = None,
    topics: Topics = "",
    max_size: MaxSize = None,
    max_duration: MaxDuration = None,
    split_size: SplitSize = None,
    split_duration: SplitDuration = None,
    cluster: OnCluster = False,
    uv: options.Uv = False,
    stop_after: StopAfter = None,
    allow_shell_nodes: AllowShellNodes = False,
    env: options.EnvPairs = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Record the outputs of a dataflow to an MCAP file.

    With a PATH, runs that file as `dora run` does and records from the first message on. With
    --attach, records a running dataflow until Ctrl-C or until it ends; it needs no debug mode.

    The machines of a cluster record their own outputs to their own disks: with --attach to a
    dataflow on several machines, with --cluster and whenever an option or DORA_COORDINATOR_ADDR
    names a coordinator. Their files are merged into one by `dora recording fetch`, and at the end
    if there is an --output.

    Nodes are never slowed down: messages that could not be recorded are counted, and the exit code
    is then 1.
    """
    if (path is None) == (attach is None):
        raise typer.BadParameter("give a PATH to run, or --attach DATAFLOW; one of them")
    from dora_config.protocol.recorders import RecordingLimits
    from dora_node_api.backends.attach import NOTES_VARIABLE
    from dora_recordings.client.starting import RecordSettings

    # an exact replay needs the order of each node's events
    overrides = {NOTES_VARIABLE: "1", **options.env_overrides(env)}
    patterns = tuple(part for word in topics.split(",") if (part := word.strip()))
    limits = RecordingLimits(
        max_bytes=max_size,
        max_seconds=max_duration,
        split_bytes=split_size,
        split_seconds=split_duration,
    )
    settings = RecordSettings(limits, target, patterns)
    named = is_named(coordinator_addr, coordinator_port)
    connect = partial(connect_now, coordinator_addr, coordinator_port)
    if path is None:
        assert attach is not None
        _attach(attach, settings, connect, named=named)
    elif cluster or named:
        if stop_after is not None or allow_shell_nodes:
            raise typer.BadParameter("--stop-after and --allow-shell-nodes are not for a cluster")
        _run_on_cluster(path, settings, connect, overrides, uv=uv)
    else:
        run = RunSettings(
            uv=uv, stop_after=stop_after, allow_shell=allow_shell_nodes, env_overrides=overrides
        )
        _run_here(path, settings, run)


record = function_command("record", _record, cls=RecordCommand, rich_help_panel=HEADING)


def _run_here(path: Path, settings: RecordSettings, run: RunSettings) -> None:
    from dora_recordings.client.recorder_process import RecorderProcess

    loaded = dataflow_file.load(path)
    places = prepare(loaded, uv=run.uv, offline=False, lock=LockChoice(), verbose=False)
    recorders: list[RecorderProcess] = []

    def start(directory: Path, dataflow_id: str) -> None:
        request = settings.request(dataflow_id, count_on=True)
        recorders.append(RecorderProcess(directory, request))

    try:
        run_loaded(loaded, places, run, start)
    finally:
        for recorder in recorders:
            recorder.finish()


def _attach(
    dataflow: str,
    settings: RecordSettings,
    connect: Callable[[], CoordinatorClient],
    *,
    named: bool,
) -> None:
    """Record a dataflow of this machine only here, and any other dataflow on its machines."""
    from dora_cli.coordinator.errors import CoordinatorUnreachable
    from dora_recordings.client.recorder_process import NoSuchRunner, RecorderProcess, find_runner
    from dora_recordings.client.starting import conclude, session_of

    absent: NoSuchRunner | None = None
    if not named:
        try:
            directory, found = find_runner(dataflow)
            if found.whole:
                request = settings.request(found.dataflow_id, count_on=False)
                RecorderProcess(directory, request).wait()
                return
        except NoSuchRunner as error:
            absent = error
    try:
        client = connect()
    except CoordinatorUnreachable as error:
        raise (absent or error) from error
    with client:
        session = session_of(client, dataflow, settings)
        settings.check_target(session.plan)
        session.begin(client)
        session.follow(client)
    conclude(connect, session, settings.target)


def _run_on_cluster(
    path: Path,
    settings: RecordSettings,
    connect: Callable[[], CoordinatorClient],
    overrides: dict[str, str],
    *,
    uv: bool,
) -> None:
    from dora_cli.commands.dataflows import deliver_code, start_dataflow
    from dora_cli.coordinator.start_spec import make_spec
    from dora_cli.logs.attached import follow
    from dora_config.protocol.control import StartDataflow
    from dora_recordings.client.starting import conclude, session_of_started

    spec = make_spec(dataflow_file.load(path), uv=uv, env_overrides=overrides)
    plan = settings.plan(spec)
    settings.check_target(plan)
    request = StartDataflow(spec=spec.model_copy(update={"recording": plan}))
    with connect() as client:
        uuid = start_dataflow(client, deliver_code(client, request))
        try:
            session = session_of_started(client, uuid, plan)
            session.begin(client)
            succeeded = follow(client, uuid)
        except DoraError:
            output.warn(
                f"the dataflow and its recording may keep running; `dora stop {uuid}` ends both"
            )
            raise
    session.finish()
    conclude(connect, session, settings.target)
    if not succeeded:
        raise CommandFailed
