"""Find the runner of a dynamic node by the index files of runners."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dora_node_api.errors import SetUpError
from dora_node_api.frozen import FrozenRecord

PORT_VARIABLE = "DORA_DAEMON_LOCAL_LISTEN_PORT"
SERVICES = Path("/run")
"""Folder in which systemd makes the runtime directories of services."""


class RunnerAddress(FrozenRecord):
    """A running runner, as described by its index file."""

    socket: str
    dataflow_id: str
    name: str | None
    nodes: tuple[str, ...]
    dynamic_nodes: tuple[str, ...]
    daemon_port: int | None = None
    """Port of the daemon that started it; None: `dora run`."""

    def __str__(self) -> str:
        return f"{self.name} ({self.dataflow_id})" if self.name else self.dataflow_id


def find_runner(node_id: str, daemon_port: int | None = None, dataflow: str | None = None) -> str:
    """Return the socket on which dynamic node `node_id` sends Hello. Raises SetUpError.

    `daemon_port` None: that of DORA_DAEMON_LOCAL_LISTEN_PORT, or any. `dataflow`: name, or the
    start of the UUID; None: any.
    """
    living = list(living_runners())
    runners = [one for one in living if dataflow is None or _is_named(one, dataflow)]
    if living and not runners:
        names = ", ".join(str(one) for one in living)
        raise SetUpError(
            f"could not set up the node from node id `{node_id}`: no dataflow `{dataflow}` of this"
            f" user is running on this machine; running: {names}"
        )
    having = [runner for runner in runners if node_id in runner.dynamic_nodes]
    port = _port_of_environment() if daemon_port is None else daemon_port
    matching = having if port is None else _of_daemon(having, port)
    if len(matching) == 1:
        return matching[0].socket
    if matching:
        raise SetUpError(
            f"multiple dataflows contain dynamic node id `{node_id}`: {_listed(matching)}."
            " Pass the name or the UUID of one of them as `dataflow`"
        )
    if having:
        raise SetUpError(
            f"could not set up the node from node id `{node_id}`: the daemon with port {port} has"
            f" no dataflow with a dynamic node of that id, others have: {_listed(having)}."
            f" Correct `daemon_port` or {PORT_VARIABLE}, or leave it out"
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


def _is_named(runner: RunnerAddress, dataflow: str) -> bool:
    return runner.name == dataflow or runner.dataflow_id.startswith(dataflow)


def _of_daemon(runners: list[RunnerAddress], port: int) -> list[RunnerAddress]:
    """Return the runners of a daemon; if it has no runner, the runners without a daemon."""
    own = [runner for runner in runners if runner.daemon_port == port]
    return own or [runner for runner in runners if runner.daemon_port is None]


def _listed(runners: list[RunnerAddress]) -> str:
    return ", ".join(
        str(one) if one.daemon_port is None else f"{one} of the daemon with port {one.daemon_port}"
        for one in runners
    )


def _port_of_environment() -> int | None:
    text = os.environ.get(PORT_VARIABLE)
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise SetUpError(f"{PORT_VARIABLE} is {text!r}, which is not a port") from error


def runtime_roots() -> list[Path]:
    """Return the folders of the runners of this user, and of services that it may use."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # XDG rules; runners do the same
        state = Path("~/.local/state").expanduser()
    given = filter(None, os.environ.get("RUNTIME_DIRECTORY", "").split(":"))
    services = sorted(SERVICES.glob("dora-daemon-*"))
    usable = (path for path in services if os.access(path, os.R_OK | os.X_OK))
    return list(dict.fromkeys((state / "dora" / "run", *map(Path, given), *usable)))


def living_runners() -> Iterator[RunnerAddress]:
    """Yield the runners on this machine that this user may use."""
    for root in runtime_roots():
        try:
            indexes = sorted(root.glob("*/index.json"))
        except OSError:
            continue
        yield from filter(None, map(_read_index, indexes))


def _read_index(index: Path) -> RunnerAddress | None:
    try:
        values = json.loads(index.read_text())
        with suppress(PermissionError):  # it is alive
            os.kill(values["pid"], 0)
        return RunnerAddress(
            socket=str(index.parent / values.get("socket", "n")),
            dataflow_id=str(values["dataflow_id"]),
            name=values.get("name"),
            nodes=tuple(values["nodes"]),
            dynamic_nodes=tuple(values["dynamic_nodes"]),
            daemon_port=values.get("daemon_port"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        # Ended, being written, removed, or of another version: unusable.
        return None
