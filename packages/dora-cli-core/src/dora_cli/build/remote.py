"""Builds on the daemons: sends the request, shows its progress, records the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dora_cli import output
from dora_cli.build.local import LockChoice
from dora_cli.build.progress import build_progress
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.start_spec import make_spec
from dora_cli.errors import explained_interrupt
from dora_cli.shipping.sending import send
from dora_config.protocol.builds import (
    BuildDataflow,
    BuildProgress,
    BuildSettings,
    BuildTriggered,
    Built,
)
from dora_config.protocol.dataflow import DataflowSpec
from dora_daemon.build.session_file import fingerprint, record_build

if TYPE_CHECKING:
    from dora_config.dataflow.loader import LoadedDataflow


def build_on_daemons(
    client: CoordinatorClient,
    loaded: LoadedDataflow,
    *,
    uv: bool,
    offline: bool,
    parallel: bool,
    verbose: bool,
    lock: LockChoice,
) -> str:
    """Build every node on the machine where it will run; return the id of the build.

    Raises RequestFailed with all failures; CommandFailed when the user interrupts.
    """
    settings = BuildSettings(
        offline=offline,
        parallel=parallel,
        commits=lock.commits(loaded),
    )
    spec = make_spec(loaded, uv=uv).model_copy(
        update={"name": None, "build_id": None, "places": {}, "built_on": {}}
    )
    spec = send(client, spec).model_copy(update={"name": loaded.resolved.name})
    request = BuildDataflow(spec=spec, settings=settings)
    text = "build interrupted, also on the daemons; run it again to complete it"
    with explained_interrupt(text):
        built = _built(client, request, verbose=verbose)
    lock.record(loaded, {one.node: one.commit for one in built.nodes if one.commit is not None})
    built_on = {one.node: one.daemon for one in built.nodes}
    current = fingerprint(loaded.resolved, uv=uv)
    record_build(loaded.path, built.build_id, current, built_on=built_on)
    return built.build_id


def deliver(
    client: CoordinatorClient, spec: DataflowSpec, replaces: str | None = None
) -> DataflowSpec:
    """Send the code of nodes and build those on their machines, as preparation of a start.

    ``replaces``: the running dataflow to which the nodes belong. Raises CollectionError,
    RequestFailed with all failures.
    """
    sent = send(client, spec)
    if not sent.code:
        return sent
    nodes = tuple(
        node
        if node.id in sent.code
        else node.model_copy(update={"build": (), "git": None})  # built by `dora build`
        for node in sent.resolved.nodes
    )
    request = BuildDataflow(
        spec=sent.with_nodes(nodes), settings=BuildSettings(parallel=True), replaces=replaces
    )
    built = _built(client, request)
    return sent.model_copy(update={"delivered_by": built.build_id})


def _built(client: CoordinatorClient, request: BuildDataflow, *, verbose: bool = False) -> Built:
    return client.follow(request, RemoteBuildProgress(verbose=verbose).show)


class RemoteBuildProgress:
    """Shows the events of a build with daemon and node in front."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._shown = build_progress((), verbose=verbose)

    def show(self, progress: BuildTriggered | BuildProgress) -> None:
        """Show the events of one frame."""
        match progress:
            case BuildTriggered(build_id=build_id):
                output.write(f"dataflow build triggered: {build_id}")
            case BuildProgress(daemon=daemon, events=events, dropped=dropped):
                if dropped:
                    self._shown.leave_out(daemon, dropped)
                for event in events:
                    named = event.model_copy(update={"node": f"{daemon}/{event.node}"})
                    self._shown.show(named)
