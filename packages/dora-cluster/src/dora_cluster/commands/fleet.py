"""Commands of `dora cluster` that change a fleet: what machines should run, and roll-outs.

The file and the code of its nodes are read here and compared by the coordinator, which carries out
a change.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dora_cli import dataflow_file, options, output
from dora_cli.coordinator.client import QUERY_TIMEOUT, CoordinatorClient
from dora_cli.coordinator.errors import CoordinatorUnavailable
from dora_cli.coordinator.options import (
    CoordinatorAddr,
    CoordinatorPort,
    connect,
    connect_of,
    place_in,
)
from dora_cli.coordinator.start_spec import make_spec
from dora_cli.errors import CommandFailed, explained_interrupt
from dora_cli.shipping.sending import Collected, collect_all, upload, with_code
from dora_cluster.coordinator.queries import StandbyChange, standby_change
from dora_config.cluster.fleet import FleetDataflow, FleetMachines
from dora_config.cluster.loader import LoadedFleet, load_fleet
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.errors import DoraError
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet import (
    ApplyFleet,
    CompareFleet,
    DesiredDataflow,
    Fleet,
    FleetComparison,
    FleetReport,
    GetFleet,
    GetFleetHistory,
    ObservedCopy,
    PauseFleet,
    RollBackFleet,
    for_fleet,
    with_env,
)

FleetFile = Annotated[
    Path,
    typer.Argument(
        metavar="PATH", help="A cluster file with `dataflows`, or a file of only these."
    ),
]
OnlyDataflows = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Only this dataflow (repeatable)."),
]
Detach = Annotated[bool, typer.Option("--detach", help="Do not wait for the end of the roll-out.")]
CHANGES = 2
"""Exit code if the file differs from what runs."""

POLL_SECONDS = 0.5
"""Seconds between two requests while a roll-out is followed."""
RECONNECT_SECONDS = 120.0
"""Seconds that a command which follows a roll-out waits for a lost coordinator."""


@dataclass(frozen=True, slots=True)
class ReadFleet:
    """A fleet as a file describes it, with the code of its nodes."""

    loaded: LoadedFleet
    fleet: Fleet
    code: list[Collected]


def operator() -> str:
    """Return `USER@HOST` of this account, for the history of the fleet."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def read_fleet(path: Path, only: tuple[str, ...] = ()) -> ReadFleet:
    """Read the file, its dataflow files, and the code of their nodes.

    ``only``: names of dataflows; others are not read. Raises ConfigError, DoraError,
    CollectionError.
    """
    loaded = load_fleet(path)
    for problem in loaded.warnings:
        output.remark(str(problem))
    found, code = [], list[Collected]()
    for name, entry in loaded.dataflows.items():
        if only and name not in only:
            continue
        place = f"{loaded.location(name)}: dataflow {name}"
        found.append(_desired(name, entry, path.parent, place, code))
    fleet = Fleet(dataflows=tuple(found), rollout=loaded.rollout)
    return ReadFleet(loaded, fleet, code)


def _desired(
    name: str, entry: FleetDataflow, folder: Path, place: str, code: list[Collected]
) -> DesiredDataflow:
    file = folder / entry.file
    if not file.is_file():
        problem = "is a folder; name the dataflow file in it" if file.is_dir() else "does not exist"
        raise DoraError(f"{place}: file {file} {problem}")
    spec = make_spec(dataflow_file.load(file), name=name, offline=entry.offline)
    spec = with_env(spec, entry.env).model_copy(update={"params": entry.params})
    _check_nodes(spec.resolved.nodes, entry, place)
    collected = collect_all(spec)
    code += collected.values()
    chosen = entry.machines or FleetMachines()
    spec = for_fleet(with_code(spec, collected))
    return DesiredDataflow(spec=spec, machines=chosen.ids, labels=chosen.labels)


def _check_nodes(nodes: tuple[ResolvedNode, ...], entry: FleetDataflow, place: str) -> None:
    known = [node.id for node in nodes]
    for name in entry.params:
        if name not in known:
            listed = ", ".join(known)
            raise DoraError(f'{place}: params of node "{name}", which does not exist: {listed}')
    for node in nodes:
        if entry.machines is not None and (node.deploy.machine or node.deploy.labels):
            raise DoraError(
                f'{place}: node "{node.id}" names its machine in `deploy`, but each copy runs on '
                "one machine; remove one of them"
            )


def note_unversioned(fleet: Fleet) -> None:
    """Print which nodes have files that are not part of the fleet's generations."""
    names = [
        f"{one.name}/{node.id}"
        for one in fleet.dataflows
        for node in one.spec.resolved.nodes
        if node.deploy.distribute == "local" and _runs_file(one.spec, node)
    ]
    if names:
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        output.remark(
            f"note: changed files of {shown} are not found and not sent; use `deploy: {{distribute:"
            " http}`"
        )


def _runs_file(spec: DataflowSpec, node: ResolvedNode) -> bool:
    return any((Path(spec.origin.directory) / name).is_file() for name in node.programs)


def compare(
    client: CoordinatorClient, read_fleet: ReadFleet, only: tuple[str, ...]
) -> FleetComparison:
    """Compare a fleet with what runs; raises ConfigError for machines that do not exist."""
    found = client.request(CompareFleet(fleet=read_fleet.fleet, only=only))
    read_fleet.loaded.require_known(found.machines)
    chosen = {one.name.rpartition("@")[0] for one in found.copies if one.action != "stop"}
    for one in read_fleet.fleet.dataflows:
        if one.labels is not None and one.name not in chosen:
            labels = ", ".join(f"{name}={value}" for name, value in one.labels.items())
            output.remark(f"warning: dataflow {one.name}: no machine has the labels {labels}")
    return found


def show_differences(found: FleetComparison, standbys: StandbyChange | None) -> bool:
    """Print differences; return whether there are any."""
    lines = [line for one in found.copies for line in one.lines()]
    if standbys is not None:
        output.write(f"coordinator: standby: {standbys.before} -> {standbys.after}")
    for line in lines:
        output.write(line)
    if not found.differs and standbys is None:
        output.write("no changes")
    elif found.differs and not lines:
        output.write("nothing that runs changes, only what is still to be started or stopped")
    return found.differs or standbys is not None


# ------------------------------------------------------------------------------- following


def follow(client: CoordinatorClient, started: FleetReport) -> FleetReport:
    """Print the progress of a roll-out until it ends; raises CoordinatorUnavailable."""
    printed: dict[str, str] = {}
    report = started
    while True:
        for one in report.copies:
            line = line_of(one)
            if printed.get(one.name) != line:
                printed[one.name] = line
                output.remark(line)
        if report.settled or report.generation != started.generation:
            return report
        time.sleep(POLL_SECONDS)
        report = _report(client)


def _report(client: CoordinatorClient) -> FleetReport:
    """Return the report; wait for a coordinator that is being restarted."""
    deadline = time.monotonic() + RECONNECT_SECONDS
    while True:
        try:
            return client.request(GetFleet())
        except CoordinatorUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)


def line_of(one: ObservedCopy) -> str:
    """Return the state of a copy as a line."""
    words = {
        "current": f"generation {one.observed} runs",
        "checking": f"generation {one.observed} runs, being checked",
        "off": "its machine is off; it follows when it returns",
    }
    text = words.get(one.state, one.state)
    if one.desired is None:
        text = "being stopped"
    detail = f" ({one.detail})" if one.detail else ""
    return f"{one.name}: {text}{detail}"


def finish(client: CoordinatorClient, started: FleetReport, *, detach: bool) -> None:
    """Follow a roll-out to its end unless ``detach``; raises CommandFailed if it failed."""
    output.write(f"applying generation {started.generation}")
    if detach:
        return
    with explained_interrupt(
        "interrupted: the coordinator continues the roll-out; `dora cluster status` shows it, "
        "`dora cluster pause` stops it"
    ):
        report = follow(client, started)
        number = started.generation
        if report.generation != number and report.by != f"roll-out of generation {number}":
            output.failure(f"generation {report.generation} of {report.by} replaced it meanwhile")
            raise CommandFailed
        if report.generation != number:
            output.failure(f"generation {number} {_outcome(client, number)}")
            follow(client, report)
            raise CommandFailed
        if report.paused is not None:
            output.failure(f"generation {number} is paused: {report.paused}")
            raise CommandFailed
        output.write(f"generation {number}: {report.outcome}")


def _outcome(client: CoordinatorClient, number: int) -> str:
    entries = client.request(GetFleetHistory()).generations
    return next((one.outcome for one in entries if one.generation == number), "failed")


# ------------------------------------------------------------------------------- commands


@contextmanager
def _compared(
    path: Path, only: list[str] | None, addr: str | None, port: int | None
) -> Iterator[tuple[CoordinatorClient, ReadFleet, FleetComparison, StandbyChange | None]]:
    """Compare a file with what runs, by the coordinator of the file or of the options."""
    names = tuple(only or ())
    read = read_fleet(path, names)
    note_unversioned(read.fleet)
    cluster = read.loaded.cluster
    coordinator = None if cluster is None else cluster.coordinator
    with place_in(path, coordinator, addr, port) as place, connect(*place) as client:
        found = compare(client, read, names)
        wanted = None if cluster is None or names else standby_change(client, cluster)
        yield client, read, found, wanted


def diff(
    path: FleetFile,
    only: OnlyDataflows = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show what `dora cluster apply` would change, node by node.

    Exits with 0 if nothing would change, with 2 if something would.
    """
    with _compared(path, only, coordinator_addr, coordinator_port) as (_, _, found, standbys):
        if show_differences(found, standbys):
            raise typer.Exit(CHANGES)


def apply(
    path: FleetFile,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    only: OnlyDataflows = None,
    force: options.ForceHolds = False,
    detach: Detach = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Change the fleet to the state in the file: show the differences, ask, and follow.

    Nodes that do not change keep running. The coordinator carries it out, so that it continues
    after Ctrl-C and on machines that return later.
    """
    with _compared(path, only, coordinator_addr, coordinator_port) as compared:
        client, read, found, standbys = compared
        if not show_differences(found, standbys):
            return
        if not options.confirmed("Apply these changes?", yes=yes):
            raise CommandFailed
        if standbys is not None:
            client.request(standbys.request, timeout=QUERY_TIMEOUT)
            output.write(f"standbys: {standbys.after}; `dora cluster status` shows their copies")
        if not found.differs:
            return
        if read.code:
            upload(client.endpoint, read.code)
        request = ApplyFleet(
            fleet=read.fleet,
            only=tuple(only or ()),
            generation=found.generation,
            by=operator(),
            force=force,
        )
        finish(client, client.request(request), detach=detach)


def history(
    path: options.OptionalFleetFile = None,
    output_format: options.Output = "table",
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Show who changed the fleet, when, what, and how it went."""
    with connect_of(path, coordinator_addr, coordinator_port) as client:
        entries = client.request(GetFleetHistory()).generations
        if output_format == "json":
            for entry in entries:
                output.json_line(entry.model_dump())
            return
        for entry in entries:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at))
            output.write(f"generation {entry.generation}  {at}  {entry.action} by {entry.by}")
            for change in entry.changes:
                output.write(f"  {change}")
            output.write(f"  -> {entry.outcome}")
        if not entries:
            output.write("nothing was applied")


def rollback(
    path: options.OptionalFleetFile = None,
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="N", help="This generation (default: the one before)."),
    ] = None,
    detach: Detach = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Apply an earlier generation of the fleet again, with the code that it had.

    `dora cluster downgrade` returns to an earlier version of dora.
    """
    with connect_of(path, coordinator_addr, coordinator_port) as client:
        started = client.request(RollBackFleet(to=to, by=operator()))
        finish(client, started, detach=detach)


def pause(
    path: options.OptionalFleetFile = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Stop changing machines; what runs keeps running. `dora cluster resume` continues."""
    with connect_of(path, coordinator_addr, coordinator_port) as client:
        _pause(client, paused=True)


def resume(
    path: options.OptionalFleetFile = None,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Continue a roll-out that was paused or failed; what failed is tried again."""
    with connect_of(path, coordinator_addr, coordinator_port) as client:
        _pause(client, paused=False)


def _pause(client: CoordinatorClient, *, paused: bool) -> None:
    client.request(PauseFleet(paused=paused, by=operator()))
    output.write(f"the fleet is {'paused' if paused else 'resumed'}")
