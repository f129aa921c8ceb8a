"""`dora build`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dora_cli import dataflow_file, options, output
from dora_cli.build.local import LockChoice, needs_build, prepare_nodes
from dora_cli.coordinator.options import CoordinatorAddr, CoordinatorPort, connect_now, is_named

if TYPE_CHECKING:
    from dora_cli.coordinator.client import CoordinatorClient
    from dora_config.dataflow.loader import LoadedDataflow


def build(
    path: options.DataflowFile,
    uv: options.Uv = False,
    local: Annotated[
        bool, typer.Option("--local", help="Build on this machine, regardless of `deploy`.")
    ] = False,
    strict_types: options.StrictTypes = False,
    locked: options.Locked = False,
    write_lockfile: options.WriteLockFile = False,
    lockfile: options.LockFile = None,
    parallel: Annotated[
        bool,
        typer.Option("--parallel", help="Build several nodes at once (the default with --uv)."),
    ] = False,
    offline: options.Offline = False,
    verbose: options.Verbose = False,
    coordinator_addr: CoordinatorAddr = None,
    coordinator_port: CoordinatorPort = None,
) -> None:
    """Run the build commands of a dataflow and clone its git sources.

    If the file has `deploy` and a coordinator answers, or a coordinator is given, each daemon
    builds its own nodes; otherwise all nodes are built on this machine. A line that several nodes
    have runs once.
    """
    lock = LockChoice.from_options(locked=locked, write=write_lockfile, path=lockfile)
    loaded = dataflow_file.load(path, strict_types=strict_types or None)
    if not needs_build(loaded):
        output.write("nothing to build: no node has `build` or `git`")
        return
    client = None if local else _client(loaded, coordinator_addr, coordinator_port)
    build_id: str | None
    if client is not None:
        from dora_cli.build.remote import build_on_daemons

        with client:
            build_id = build_on_daemons(
                client,
                loaded,
                uv=uv,
                offline=offline,
                parallel=parallel,
                verbose=verbose,
                lock=lock,
            )
    else:
        from dora_daemon.build.builder import MAX_JOBS

        build_id = prepare_nodes(
            loaded,
            loaded.directory,
            uv=uv,
            offline=offline,
            jobs=MAX_JOBS if parallel else None,
            lock=lock,
            verbose=verbose,
        ).build_id
    output.write(f"build finished successfully: {build_id}")


def _client(loaded: LoadedDataflow, addr: str | None, port: int | None) -> CoordinatorClient | None:
    """Connect to the coordinator whose daemons build; None: build on this machine.

    A coordinator that the user gives must answer; otherwise it is optional.
    """
    from dora_cli.coordinator.errors import CoordinatorUnreachable

    named = is_named(addr, port)
    if not named and not loaded.resolved.uses_deploy:
        return None
    try:
        return connect_now(addr, port)
    except CoordinatorUnreachable:
        if named:
            raise
        output.remark("note: no coordinator answers; building all nodes on this machine")
        return None
