"""`dora record`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import dataflow_file, options
from dora_cli.build.lock_choice import LockChoice
from dora_cli.commands.local.run import AllowShellNodes, RunSettings, StopAfter, prepare, run_loaded
from dora_cli.commands.topic.arguments import positive_duration
from dora_config.yaml.quantities import parse_size

if TYPE_CHECKING:
    from dora_config.protocol.recording import RecordingRequest


def _size(text: str) -> int:
    """Bytes of a size above zero; raises ValueError."""
    size = parse_size(text)
    if size <= 0:
        raise ValueError(f"{text!r}: expected a size above 0")
    return size


def _size_option(name: str, *, help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        name, metavar="SIZE", parser=options.checked(_size), help=help
    )
    return option


Source = Annotated[
    Path | None, typer.Argument(metavar="[PATH]", help="The dataflow file to run and record.")
]
Attach = Annotated[
    str | None,
    typer.Option(
        "--attach",
        metavar="DATAFLOW",
        help="Record a running dataflow instead, by its name or UUID.",
    ),
]
Target = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Default: recording_<date>_<time>.mcap."),
]
Topics = Annotated[
    str,
    typer.Option(
        "--topics", metavar="PATTERN,..", help="Outputs such as camera/image,*/pose; default all."
    ),
]
MaxSize = Annotated[
    int | None, _size_option("--max-size", help="End the recording at this size, such as 2GB.")
]
MaxDuration = Annotated[
    float | None,
    options.duration(
        "--max-duration", help="End the recording after this time.", parse=positive_duration
    ),
]
SplitSize = Annotated[
    int | None, _size_option("--split-size", help="Begin another file at this size.")
]
SplitDuration = Annotated[
    float | None,
    options.duration(
        "--split-duration", help="Begin another file after this time.", parse=positive_duration
    ),
]


def main(
    path: Source = None,
    attach: Attach = None,
    target: Target = None,
    topics: Topics = "",
    max_size: MaxSize = None,
    max_duration: MaxDuration = None,
    split_size: SplitSize = None,
    split_duration: SplitDuration = None,
    uv: options.Uv = False,
    stop_after: StopAfter = None,
    allow_shell_nodes: AllowShellNodes = False,
    env: options.EnvPairs = None,
) -> None:
    """Record the outputs of a dataflow to an MCAP file.

    With a PATH, runs that file as `dora run` does and records from the first message on. With
    --attach, records a dataflow that runs on this machine until Ctrl-C or until it ends; it needs
    no debug mode. Nodes are never slowed down: messages that could not be recorded are counted,
    and the exit code is then 1.
    """
    if (path is None) == (attach is None):
        raise typer.BadParameter("give a PATH to run, or --attach DATAFLOW; one of them")
    overrides = options.env_overrides(env)

    from dora_cli.recordings import recorder_process
    from dora_config.protocol.recording import RecordingRequest

    file = target or Path(time.strftime("recording_%Y%m%d_%H%M%S.mcap"))
    patterns = tuple(part for word in topics.split(",") if (part := word.strip()))

    def request(socket: Path, dataflow_id: str) -> RecordingRequest:
        return RecordingRequest(
            socket=str(socket),
            dataflow_id=dataflow_id,
            patterns=patterns,
            path=str(file.absolute()),
            max_bytes=max_size,
            max_seconds=max_duration,
            split_bytes=split_size,
            split_seconds=split_duration,
        )

    from dora_daemon.process_tree.runtime_dir import INSPECTION_SOCKET

    if attach is not None:
        from dora_cli.recordings.local_runners import find_runner

        directory, found = find_runner(attach)
        wanted = request(directory / INSPECTION_SOCKET, found.dataflow_id)
        recorder_process.report(recorder_process.RecorderProcess(wanted).wait())
        return

    assert path is not None
    loaded = dataflow_file.load(path)
    places = prepare(loaded, uv=uv, offline=False, lock=LockChoice(), rebuild=False, verbose=False)
    settings = RunSettings(
        uv=uv, stop_after=stop_after, allow_shell=allow_shell_nodes, env_overrides=overrides
    )
    recorders: list[recorder_process.RecorderProcess] = []

    def start(directory: Path, dataflow_id: str) -> None:
        wanted = request(directory / INSPECTION_SOCKET, dataflow_id)
        recorders.append(recorder_process.RecorderProcess(wanted))

    try:
        run_loaded(loaded, places, settings, start)
    finally:
        for recorder in recorders:
            recorder_process.report(recorder.finish())
