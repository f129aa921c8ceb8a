"""Sends changes of a running dataflow to the coordinator, with the code that they need."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from dora_cli.build.remote import deliver
from dora_cli.coordinator import calls
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.dataflow_file import print_warnings
from dora_cli.errors import explained_interrupt
from dora_cli.live.holds import wait_for_release
from dora_config.dataflow.expand import dataflow_to_dict
from dora_config.dataflow.loader import parse_dataflow
from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedNode
from dora_config.errors import ConfigError, DoraError, Problem
from dora_config.protocol.control import (
    CallRunner,
    ChangeGraph,
    Described,
    GraphChanged,
)
from dora_config.protocol.runner import (
    AddNode,
    GraphChange,
    NodeLocation,
    ReloadCode,
    ReplaceNode,
)
from dora_config.yaml.reader import read_item
from dora_config.yaml.scalars import written
from dora_config.yaml.text_files import MAX_FILE_BYTES, read_text
from dora_config.yaml.writer import dump_yaml

_OTHERS = "running dataflow"
"""Name of the file with the other nodes, in problems."""


class NodeFileError(DoraError):
    """A file does not contain the definition of exactly one node."""


def load_node(
    path: Path, running: ResolvedDataflow, *, replaces: str | None = None
) -> tuple[ResolvedNode, tuple[Problem, ...]]:
    """Return the node in a file, checked as part of the running dataflow, and its warnings.

    ``replaces``: id of the node that it replaces. `env` and `deploy` of the dataflow apply to it.
    Raises ConfigError and NodeFileError.
    """
    document = read_item(read_text(path, MAX_FILE_BYTES), str(path), "nodes")
    (item,) = document.data["nodes"] if document.data else [None]
    fields = item if isinstance(item, dict) else {}
    if "nodes" in fields:
        raise NodeFileError(
            f"{path}: expected one node, a mapping with `id` and `path`; remove the list `nodes`"
        )
    if replaces is not None and written(fields.get("id", replaces)) != replaces:
        raise NodeFileError(
            f'{path}: defines node "{fields["id"]}", but node "{replaces}" is to be replaced; the'
            " ids must be equal"
        )
    others = running.model_copy(
        update={"nodes": tuple(node for node in running.nodes if node.id != replaces)}
    )
    text = dump_yaml(dataflow_to_dict(others))
    try:
        loaded = parse_dataflow(text, path=path.with_name(_OTHERS), added=document)
    except ConfigError as error:
        raise _explained(path, error) from None
    known = {node.id for node in others.nodes}
    found = [node for node in loaded.resolved.nodes if node.id not in known]
    if len(found) != 1:
        names = ", ".join(node.id for node in found) or "none"
        raise NodeFileError(f"{path}: expected one node, found {names} (a module has several)")
    return found[0], _own(loaded.warnings)


def _explained(path: Path, error: ConfigError) -> DoraError:
    """Return the problems of the node, or else those that it causes in other nodes."""
    own = _own(error.problems)
    if any(one.message.startswith("duplicate node ID") for one in own):
        return NodeFileError(
            f"{path}: the running dataflow has a node of this id; use `dora node replace`"
        )
    if own:
        return ConfigError(own)
    texts = "\n".join(problem.message for problem in error.problems)
    return NodeFileError(f"{path}: does not fit the running dataflow: {texts}")


def _own(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """Return the problems that are not in other nodes."""
    return tuple(one for one in problems if Path(one.file).name != _OTHERS)


def reporting_interrupt() -> AbstractContextManager[None]:
    """Report on Ctrl-C that the coordinator completes the request."""
    return explained_interrupt(
        "interrupted: the cluster still completes a change that it has received; `dora node list` "
        "shows the nodes"
    )


def change(client: CoordinatorClient, uuid: str, request: GraphChange) -> GraphChanged:
    """Change a running dataflow. Raises RequestFailed with the reason if nothing was changed."""
    return client.request(ChangeGraph(dataflow=uuid, change=request))


def add(client: CoordinatorClient, dataflow: str | None, path: Path) -> tuple[str, GraphChanged]:
    """Add the node in a file; return its id."""
    found = calls.describe(client, dataflow)
    node = _load(path, found)
    _require_built(node)
    request = AddNode(node=node, code=_sent(client, found, node))
    return node.id, change(client, found.uuid, request)


def replace(
    client: CoordinatorClient,
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


def reload(client: CoordinatorClient, uuid: str, name: str, grace: float) -> None:
    """Run the changed files of a node: send them, then replace it or reload its operators."""
    found = calls.describe(client, uuid)
    node = next((one for one in found.spec.resolved.nodes if one.id == name), None)
    if node is None:
        raise DoraError(f'node "{name}" was removed from the dataflow')
    if node.kind != "runtime":
        _replace(client, found, node, grace)
        return
    _sent(client, found, node)
    wait_for_release(client, uuid, name)
    client.request(CallRunner(dataflow=uuid, node=name, request=ReloadCode(node=name)))


def _load(path: Path, running: Described, *, replaces: str | None = None) -> ResolvedNode:
    """Return the node in a file; its warnings are printed."""
    node, warnings = load_node(path, running.spec.resolved, replaces=replaces)
    print_warnings(warnings)
    return node


def _replace(
    client: CoordinatorClient,
    found: Described,
    node: ResolvedNode,
    grace: float,
    *,
    force: bool = False,
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
        raise DoraError(
            f'node "{node.id}" has `build` or `git`, which are run before a dataflow starts; add it'
            " to the dataflow file, or set `deploy: {distribute: http}`"
        )


def _sent(client: CoordinatorClient, found: Described, node: ResolvedNode) -> str:
    """Send and build the code of a node on its machine if it has `distribute: http` or `scp`.

    Return the digest of the code.
    """
    if node.deploy.distribute == "local":
        return found.spec.code.get(node.id, "")
    folder = Path(found.spec.origin.directory)
    if not folder.is_dir():
        raise DoraError(
            f'{folder} is not on this machine; change node "{node.id}" where the dataflow was'
            " started"
        )
    spec = found.spec.with_nodes((node,)).model_copy(
        update={"name": None, "build_id": None, "places": {}, "built_on": {}, "code": {}}
    )
    return deliver(client, spec, found.uuid).code.get(node.id, "")
