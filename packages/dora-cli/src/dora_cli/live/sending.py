"""Sends changes of a running dataflow to the coordinator, with the code that they need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dora_cli import output
from dora_cli.build.local import STOPPED_BY_USER
from dora_cli.build.remote import deliver
from dora_cli.coordinator import calls
from dora_cli.coordinator.client import Client
from dora_cli.dataflow_file import print_warnings
from dora_cli.errors import CommandFailed
from dora_cli.live.definition import load_node
from dora_cli.live.holds import wait_for_release
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.errors import DoraError
from dora_config.protocol.calls import RunnerReplies
from dora_config.protocol.control import (
    CallRunner,
    ChangeGraph,
    DataflowRef,
    Described,
    GraphChanged,
)
from dora_config.protocol.runner import (
    AddNode,
    GraphChange,
    NodeLocation,
    Reload,
    ReplaceNode,
)


class NodeRemoved(DoraError):
    """A node was removed from the dataflow."""


class CodeNotFound(DoraError):
    """The files of a node are not on this machine."""


@contextmanager
def reporting_interrupt() -> Iterator[None]:
    """On Ctrl-C, report that the coordinator completes the request, and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        output.failure(
            "interrupted: the cluster still completes a change that it has received; `dora node"
            " list` shows the nodes"
        )
        raise CommandFailed(STOPPED_BY_USER) from None


def change(client: Client, uuid: str, request: GraphChange) -> GraphChanged:
    """Change a running dataflow. Raises RequestFailed with the reason if nothing was changed."""
    which = DataflowRef(uuid=uuid)
    return client.request(ChangeGraph(dataflow=which, change=request), GraphChanged)


def add(client: Client, dataflow: str | None, path: Path) -> tuple[str, GraphChanged]:
    """Add the node in a file; return its id."""
    found = calls.describe(client, dataflow)
    node = _load(path, found)
    _require_built(node)
    request = AddNode(node=node, code=_sent(client, found, node))
    return node.id, change(client, found.uuid, request)


def replace(
    client: Client,
    dataflow: str | None,
    name: str,
    path: Path,
    grace: float,
    *,
    force: bool = False,
) -> GraphChanged:
    """Replace a node by the definition in a file; ``force``: also while it holds updates."""
    found = calls.describe(client, dataflow)
    node = _load(path, found, replaces=name)
    return _replace(client, found, node, grace, force=force)


def reload(client: Client, uuid: str, name: str, grace: float) -> None:
    """Run the changed files of a node: send them, then replace it or reload its operators."""
    found = calls.describe(client, uuid)
    node = next((one for one in found.spec.resolved.nodes if one.id == name), None)
    if node is None:
        raise NodeRemoved(f'node "{name}" was removed from the dataflow')
    if node.kind != "runtime":
        _replace(client, found, node, grace)
        return
    _sent(client, found, node)
    wait_for_release(client, uuid, name)
    which = DataflowRef(uuid=uuid)
    client.request(CallRunner(dataflow=which, node=name, request=Reload(node=name)), RunnerReplies)


def _load(path: Path, running: Described, *, replaces: str | None = None) -> ResolvedNode:
    """Return the node in a file; its warnings are printed."""
    node, warnings = load_node(path, running.spec.resolved, replaces=replaces)
    print_warnings(warnings)
    return node


def _replace(
    client: Client, found: Described, node: ResolvedNode, grace: float, *, force: bool = False
) -> GraphChanged:
    old = next((one for one in found.spec.resolved.nodes if one.id == node.id), None)
    if old is None or (old.build, old.git) != (node.build, node.git):
        _require_built(node)
    place = found.spec.places.get(node.id, NodeLocation())
    request = ReplaceNode(
        node=node,
        place=place,
        code=_sent(client, found, node),
        grace=grace,
        force=force,
    )
    if not force:
        wait_for_release(client, found.uuid, node.id)
    return change(client, found.uuid, request)


def _require_built(node: ResolvedNode) -> None:
    if node.needs_build and node.deploy.distribute == "local":
        raise CodeNotFound(
            f'node "{node.id}" has `build` or `git`, which are run before a dataflow starts; add it'
            " to the dataflow file, or set `deploy: {distribute: http}`"
        )


def _sent(client: Client, found: Described, node: ResolvedNode) -> str:
    """Send and build the code of a node on its machine if it has `distribute: http` or `scp`.

    Return the digest of the code.
    """
    if node.deploy.distribute == "local":
        return found.spec.code.get(node.id, "")
    folder = Path(found.spec.origin.directory)
    if not folder.is_dir():
        raise CodeNotFound(
            f'{folder} is not on this machine; change node "{node.id}" where the dataflow was'
            " started"
        )
    spec = found.spec.with_nodes((node,)).model_copy(
        update={"name": None, "build_id": None, "places": {}, "built_on": {}, "code": {}}
    )
    return deliver(client, spec, found.uuid).code.get(node.id, "")
