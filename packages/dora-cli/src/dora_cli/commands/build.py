"""`dora build`: clone git sources and run build lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dora_cli import building, coordinator_options, dataflow_file, options, output
from dora_cli.building import LockChoice

app = options.application()


@app.command()
def build(
    path: options.DataflowFile,
    uv: options.Uv = False,
    local: Annotated[
        bool, typer.Option("--local", help="Build on this machine, whatever `deploy` says.")
    ] = False,
    strict_types: options.StrictTypes = False,
    locked: options.Locked = False,
    write_lockfile: options.WriteLockFile = False,
    lockfile: options.LockFile = None,
    parallel: Annotated[
        bool,
        typer.Option(
            "--parallel", help="Build several nodes at once (with --uv this is the default)."
        ),
    ] = False,
    offline: options.Offline = False,
    coordinator_addr: coordinator_options.Addr = None,
    coordinator_port: coordinator_options.Port = None,
) -> None:
    """Run the build lines of a dataflow and clone its git sources."""
    from dora_daemon.build.service import MOST_JOBS

    lock = lock_choice(locked=locked, write=write_lockfile, path=lockfile)
    loaded = dataflow_file.load(path, strict_types=strict_types or None)
    elsewhere = coordinator_addr is not None or coordinator_port is not None
    if not local and (elsewhere or loaded.resolved.uses_deploy):
        output.remark(
            "note: all nodes are built on this machine; daemons are not asked to build theirs yet"
        )
    result = building.prepare_nodes(
        loaded,
        path.resolve().parent,
        uv=uv,
        offline=offline,
        jobs=MOST_JOBS if parallel else None,
        lock=lock,
    )
    if building.needs_work(loaded):
        output.write(f"build finished successfully: {result.build_id}")
    else:
        output.write("nothing to build: no node has `build` or `git`")


def lock_choice(*, locked: bool, write: bool, path: Path | None) -> LockChoice:
    """The lock options of a command; a usage error when they contradict each other."""
    if locked and write:
        raise typer.BadParameter("--locked and --write-lockfile exclude each other")
    if path is not None and not (locked or write):
        output.warn("--lockfile has no effect without --locked or --write-lockfile")
    return LockChoice(locked, write, path)
