"""`dora replay`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dora_cli import options, output
from dora_cli.build.local import LockChoice
from dora_cli.command import function_command
from dora_cli.commands.run import AllowShellNodes, RunSettings, StopAfter, prepare, run_loaded
from dora_cli.errors import CommandFailed
from dora_config import plugins
from dora_config.atomic_write import write_file
from dora_config.errors import DoraError
from dora_recordings.formats import Files
from dora_recordings.plugin import HEADING

if TYPE_CHECKING:
    from dora_config.dataflow.loader import LoadedDataflow
    from dora_daemon.runner.service import Runner


class MessagesDropped(DoraError):
    """A replay without waiting times was not complete."""


Replace = Annotated[
    str | None,
    typer.Option(
        "--replace",
        metavar="NODE,..",
        help="Nodes that are replayed; by default all that were recorded.",
    ),
]
Speed = Annotated[float, typer.Option("--speed", min=0.0, help="0: as fast as the readers accept.")]
Begin = Annotated[float | None, options.duration("--from", help="Skip this much of the beginning.")]
End = Annotated[
    float | None, options.duration("--to", help="End at this time after the beginning.")
]
SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Replay the intact parts of a damaged file.")
]
OutputYaml = Annotated[
    Path | None,
    typer.Option("--output-yaml", metavar="FILE", help="Write the dataflow, do not run it."),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Compare what nodes send with the recording, in virtual time (dora-testing).",
    ),
]
Run = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="NODE,..",
        help="With --check: nodes that run; by default all that received and sent messages.",
    ),
]
Atol = Annotated[
    float, typer.Option("--atol", min=0.0, help="With --check: absolute tolerance of numbers.")
]
Rtol = Annotated[
    float, typer.Option("--rtol", min=0.0, help="With --check: relative tolerance of numbers.")
]
Ignore = Annotated[
    str,
    typer.Option(
        "--ignore",
        metavar="FIELD,..",
        help="With --check: fields such as stamp or metadata.stamp that may differ.",
    ),
]


def _command(
    files: Files,
    replace: Replace = None,
    speed: Speed = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end.")] = False,
    begin: Begin = None,
    end: End = None,
    skip_damaged: SkipDamaged = False,
    output_yaml: OutputYaml = None,
    check: Check = False,
    run: Run = None,
    atol: Atol = 0.0,
    rtol: Rtol = 0.0,
    ignore: Ignore = "",
    uv: options.Uv = False,
    stop_after: StopAfter = None,
    allow_shell_nodes: AllowShellNodes = False,
    env: options.EnvPairs = None,
    exit_when_nodes_finish: options.ExitWhenNodesFinish = None,
) -> None:
    """Run the dataflow of a recording; recorded nodes send what they sent, the others run.

    Messages of a node keep their order, data and metadata; the times `stamp` and `timestamp` there
    become later by as much as the send. With `--speed 0` all inputs have
    `queue_policy: backpressure`; the exit code is 1 if messages were dropped all the same.

    With `--check` nodes get the events that they received in the recording, one at a time, and what
    they send is compared, message by message. At the first difference of a node the exit code is 1.
    """
    overrides = options.env_overrides(env)
    if check:
        chosen = None if run is None else _words(run)
        _check(files, run=chosen, atol=atol, rtol=rtol, ignore=_words(ignore), env=overrides)
        return
    if begin is not None and end is not None and begin >= end:
        raise typer.BadParameter("--from must be before --to")
    names = None if replace is None else _words(replace)
    text, directory = _replay(files, names, speed, begin, end, loop=loop, skip_damaged=skip_damaged)
    if output_yaml is not None:
        write_file(output_yaml, text)
        output.write(f"wrote {output_yaml}; its relative paths begin at {directory}")
        return
    settings = RunSettings(
        uv=uv,
        stop_after=stop_after,
        allow_shell=allow_shell_nodes,
        env_overrides=overrides,
        exit_when_nodes_finish=options.optional_boolean(exit_when_nodes_finish),
    )
    _run(_load(text, directory), settings, complete=not speed)


replay = function_command("replay", _command, rich_help_panel=HEADING)


def _check(files: list[Path], **settings: Any) -> None:
    """Print what the check of a recording finds. Raises PluginError, CommandFailed."""
    lines, equal = plugins.load("dora.replay_checks", "check")(files, **settings)
    for line in lines:
        output.write(line)
    if not equal:
        raise CommandFailed


def _words(text: str) -> list[str]:
    return [word for part in text.split(",") if (word := part.strip())]


def _run(loaded: LoadedDataflow, settings: RunSettings, *, complete: bool) -> None:
    """Run until the end. ``complete``: raise MessagesDropped if messages were dropped."""
    places = prepare(loaded, uv=settings.uv, offline=False, lock=LockChoice(), verbose=False)
    dropped: dict[str, int] = {}
    run_loaded(loaded, places, settings, beside=partial(_count_dropped, counts=dropped))
    if dropped and complete:
        lines = [f"{count} of {edge}" for edge, count in dropped.items()]
        raise MessagesDropped("messages were dropped:\n" + "\n".join(lines))


async def _count_dropped(runner: Runner, counts: dict[str, int]) -> None:
    """Wait for the end of the dataflow, then add the messages that each edge has dropped."""
    import anyio

    try:
        await anyio.sleep_forever()
    finally:
        counts.update(runner.dropped())


def _replay(
    files: list[Path],
    replace: list[str] | None,
    speed: float,
    begin: float | None,
    end: float | None,
    *,
    loop: bool,
    skip_damaged: bool,
) -> tuple[str, Path]:
    """Return the dataflow that replays the files, and the folder of its relative paths."""
    from dora_config.yaml.writer import dump_yaml
    from dora_recordings.reading import damage_of
    from dora_recordings.received import Recorded
    from dora_recordings.replaying import CannotReplay, Replay, recorded_nodes, replay_dataflow

    recorded = Recorded(files)
    topics, facts = recorded.topics, recorded.facts
    damage = damage_of(recorded.recordings)
    if damage and not skip_damaged:
        raise CannotReplay("\n".join([*damage, "replay the rest with --skip-damaged"]))
    for text in damage:
        output.warn(f"{text} skipped")
    if facts.dataflow is None:
        raise CannotReplay(f"{files[0]} has no dataflow; `dora record` writes one")
    players = recorded_nodes(facts.dataflow, topics, replace)
    first = recorded.first.log_time
    replay = Replay(
        files=tuple(str(file.absolute()) for file in files),
        python=sys.executable,
        speed=speed,
        loop=loop,
        start=first + int((begin or 0.0) * 1e9),
        end=None if end is None else first + int(end * 1e9),
    )
    directory = Path(facts.source.get("working_dir") or ".")
    if not directory.is_dir():
        output.remark(f"note: {directory} does not exist; paths are relative to this folder")
        directory = Path()
    return dump_yaml(replay_dataflow(facts.dataflow, players, replay)), directory.absolute()


def _load(text: str, directory: Path) -> LoadedDataflow:
    from dora_config.dataflow.loader import parse_dataflow

    return parse_dataflow(text, path=directory / "replay.yml")
