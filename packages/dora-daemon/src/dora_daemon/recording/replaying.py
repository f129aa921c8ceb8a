"""Turns the dataflow of a recording into one that replays it; pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dora_config.dataflow.variables import escape_variables
from dora_config.errors import DoraError

PLAYER_MODULE = "dora_daemon.recording.player"
_KEPT = ("name", "description", "outputs", "output_types")
"""Fields of a recorded node that its player keeps."""


class CannotReplay(DoraError):
    """The recording has no dataflow, or other nodes."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What the players do."""

    files: tuple[str, ...]
    python: str
    """Interpreter of the players."""
    speed: float
    """0: as fast as the readers accept."""
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
    nodes = []
    for node in dataflow["nodes"]:
        if node["id"] in names:
            nodes.append(_player(node, replay))
        else:
            nodes.append(node if replay.speed else _lossless(node, names))
    return {**dataflow, "nodes": nodes}


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
        **{key: node[key] for key in _KEPT if key in node},
    }


def _lossless(node: Mapping[str, Any], players: set[str]) -> dict[str, Any]:
    """Return a node whose inputs from players hold them back instead of dropping messages."""
    changed = dict(node)
    for key in ("operators",):
        if key in changed:
            changed[key] = [_lossless(one, players) for one in changed[key]]
    if "operator" in changed:
        changed["operator"] = _lossless(changed["operator"], players)
    if "inputs" in changed:
        changed["inputs"] = {
            name: _waiting(wanted, players) for name, wanted in changed["inputs"].items()
        }
    return changed


def _waiting(wanted: Any, players: set[str]) -> Any:
    given = {"source": wanted} if isinstance(wanted, str) else dict(wanted)
    if str(given["source"]).partition("/")[0] not in players:
        return wanted
    return {**given, "queue_policy": "backpressure"}
