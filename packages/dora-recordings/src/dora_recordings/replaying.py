"""Turns the dataflow of a recording into one that replays it; pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from dora_config.dataflow.graph import cycles
from dora_config.dataflow.resolved import SINGLE_OPERATOR_ID
from dora_config.dataflow.variables import escape_variables
from dora_config.errors import DoraError
from dora_config.ids import RESERVED_NODE_ID

PLAYER_MODULE = "dora_recordings.player"
_KEPT_FIELDS = ("name", "description", "outputs", "output_types")
"""Fields of a recorded node that its player keeps."""


class CannotReplay(DoraError):
    """The recording has no dataflow, or other nodes."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Settings of the players."""

    files: tuple[str, ...]
    python: str
    """Interpreter of the players."""
    speed: float
    """Factor of the recorded speed; 0: as fast as the readers accept."""
    loop: bool
    start: int
    """Log time of the first message; all players count from it."""
    end: int | None


def recorded_nodes(
    dataflow: Mapping[str, Any], topics: Iterable[str], replace: Iterable[str] | None
) -> list[str]:
    """Return the nodes that become players, in the order of the file. Raises CannotReplay.

    ``replace``: None for every recorded node. Nodes with operators cannot be replaced.
    """
    recorded = {topic.partition("/")[0] for topic in topics}
    possible = [
        node["id"]
        for node in dataflow.get("nodes", ())
        if node["id"] in recorded and not {"operator", "operators"} & node.keys()
    ]
    wanted = possible if replace is None else list(replace)
    for node in wanted:
        if node not in possible:
            raise CannotReplay(
                f'node "{node}" cannot be replayed; recorded nodes: {", ".join(possible) or "none"}'
            )
    if not wanted:
        raise CannotReplay("the recording has no messages of nodes that can be replayed")
    return [node for node in possible if node in wanted]


def replay_dataflow(
    dataflow: Mapping[str, Any], players: Iterable[str], replay: Replay
) -> dict[str, Any]:
    """Return the dataflow with players in place of these nodes."""
    names = set(players)
    nodes = [_player(one, replay) if one["id"] in names else one for one in dataflow["nodes"]]
    return {**dataflow, "nodes": nodes if replay.speed else _lossless(nodes)}


def _player(node: Mapping[str, Any], replay: Replay) -> dict[str, Any]:
    words = ["-P", "-m", PLAYER_MODULE, "--node", node["id"], "--speed", f"{replay.speed:g}"]
    words += ["--start", str(replay.start)]
    if replay.end is not None:
        words += ["--end", str(replay.end)]
    if replay.loop:
        words.append("--loop")
    return {
        "id": node["id"],
        "path": escape_variables(replay.python),
        "args": escape_variables(shlex.join([*words, *replay.files])),
        **{key: node[key] for key in _KEPT_FIELDS if key in node},
    }


def _lossless(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the nodes with inputs that hold their senders back instead of dropping messages.

    Of each cycle one edge stays as it is, since nodes that wait for each other would block; so do
    timers and lines that nodes print, which never wait.
    """
    readers: dict[str, list[str]] = {node["id"]: [] for node in nodes if not _sources(node)}
    readers |= {node["id"]: [] for node in nodes if _sources(node)}
    for node in nodes:
        for source in _sources(node):
            readers.setdefault(source.partition("/")[0], []).append(node["id"])
    kept = {(cycle[-1], cycle[0]) for cycle in cycles(readers)}
    printed = {source for node in nodes for source in _printed(node)}
    return [_waiting(node, node["id"], kept, printed) for node in nodes]


def _programs(node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the node and its operators, each with the beginning of its outputs' names."""
    yield f"{node['id']}/", node
    for operator in node.get("operators", ()):
        yield f"{node['id']}/{operator['id']}/", operator
    if "operator" in node:
        yield f"{node['id']}/{SINGLE_OPERATOR_ID}/", node["operator"]


def _sources(node: Mapping[str, Any]) -> list[str]:
    """Return the outputs of nodes that a node reads."""
    found = [
        _source(wanted) for _, one in _programs(node) for wanted in one.get("inputs", {}).values()
    ]
    return [source for source in found if source.partition("/")[0] != RESERVED_NODE_ID]


def _source(wanted: Any) -> str:
    return str(wanted if isinstance(wanted, str) else wanted["source"])


def _printed(node: Mapping[str, Any]) -> Iterator[str]:
    for prefix, one in _programs(node):
        for setting in ("send_stdout_as", "send_logs_as"):
            if setting in one:
                yield prefix + one[setting]


def _waiting(
    reader: Mapping[str, Any], node: str, kept: Set[tuple[str, str]], printed: Set[str]
) -> dict[str, Any]:
    """Return a node or operator with its inputs changed; ``kept``: edges that close a cycle."""
    changed = dict(reader)
    if "operators" in changed:
        changed["operators"] = [_waiting(one, node, kept, printed) for one in changed["operators"]]
    if "operator" in changed:
        changed["operator"] = _waiting(changed["operator"], node, kept, printed)
    inputs = {}
    for name, wanted in changed.get("inputs", {}).items():
        source = _source(wanted)
        sender = source.partition("/")[0]
        given = {"source": wanted} if isinstance(wanted, str) else dict(wanted)
        waits = sender != RESERVED_NODE_ID and (sender, node) not in kept and source not in printed
        inputs[name] = {**given, "queue_policy": "backpressure"} if waits else wanted
    return {**changed, "inputs": inputs} if inputs else changed
