"""Find the runner of a dynamic node by the index files of runners."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from dora_node_api.errors import SetUpError
from dora_node_api.frozen import Frozen


class RunnerAddress(Frozen):
    """A running runner, as described by its index file."""

    socket: str
    dataflow_id: str
    name: str | None
    nodes: tuple[str, ...]
    dynamic_nodes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({self.dataflow_id})" if self.name else self.dataflow_id


def find_runner(node_id: str) -> str:
    """Return the socket on which dynamic node `node_id` sends Hello. Raises SetUpError."""
    runners = list(living_runners())
    matching = [runner for runner in runners if node_id in runner.dynamic_nodes]
    if len(matching) == 1:
        return matching[0].socket
    if matching:
        which = ", ".join(str(runner) for runner in matching)
        raise SetUpError(
            f"multiple dataflows contain dynamic node id `{node_id}`: {which}."
            " Stop all but one of them, or rename the node in one of them"
        )
    for runner in runners:
        if node_id in runner.nodes:
            raise SetUpError(
                f"node `{node_id}` of dataflow {runner} is not dynamic, so its runner starts it;"
                " set `path: dynamic` to start it by hand"
            )
    running = "; ".join(
        f"{runner} has {', '.join(f'`{n}`' for n in runner.dynamic_nodes) or 'none'}"
        for runner in runners
    )
    raise SetUpError(
        f"could not set up the node from node id `{node_id}`: no running dataflow of this user on"
        " this machine has a dynamic node of that id."
        f" Is a dataflow with this dynamic node running? ({running or 'no dataflow is running'})"
    )


def runtime_roots() -> list[Path]:
    """Return the folders with the directories of runners of this user and of system services."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # XDG rules; runners do the same
        state = Path("~/.local/state").expanduser()
    roots = [state / "dora" / "run"]
    for path in os.environ.get("RUNTIME_DIRECTORY", "").split(":"):
        if path:
            roots.append(Path(path))
    roots.append(Path("/run/dora"))
    return list(dict.fromkeys(roots))


def living_runners() -> Iterator[RunnerAddress]:
    """Yield the runners on this machine that this user may use."""
    for root in runtime_roots():
        try:
            indexes = sorted(root.glob("*/index.json"))
        except OSError:
            continue
        for index in indexes:
            if (runner := _read_index(index)) is not None:
                yield runner


def _read_index(index: Path) -> RunnerAddress | None:
    try:
        values = json.loads(index.read_text())
        if not _is_alive(values["pid"]):
            return None
        return RunnerAddress(
            socket=str(index.parent / values.get("socket", "n")),
            dataflow_id=str(values["dataflow_id"]),
            name=values.get("name"),
            nodes=tuple(values["nodes"]),
            dynamic_nodes=tuple(values["dynamic_nodes"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        # Being written, removed, or of another version: unusable.
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
