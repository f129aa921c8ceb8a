"""Find the runner of a dynamic node by the index files of runners."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dora_node_api.errors import SetUpError
from dora_node_api.protocol.runner_index import INDEX, PORT_VARIABLE, IndexEntry, read_entry

SERVICES = Path("/run")
"""Folder in which systemd makes the runtime directories of services."""


def find_runner(node_id: str, daemon_port: int | None = None, dataflow: str | None = None) -> str:
    """Return the socket on which dynamic node `node_id` sends Hello. Raises SetUpError.

    `daemon_port` None: that of DORA_DAEMON_LOCAL_LISTEN_PORT, or any. `dataflow`: name, or the
    start of the UUID; None: any.
    """
    sockets = {entry: str(path / entry.socket) for path, entry in living_runners()}
    living = list(sockets)
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
        return sockets[matching[0]]
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


def _is_named(runner: IndexEntry, dataflow: str) -> bool:
    return runner.name == dataflow or runner.dataflow_id.startswith(dataflow)


def _of_daemon(runners: list[IndexEntry], port: int) -> list[IndexEntry]:
    """Return the runners of a daemon; if it has no runner, the runners without a daemon."""
    own = [runner for runner in runners if runner.daemon_port == port]
    return own or [runner for runner in runners if runner.daemon_port is None]


def _listed(runners: list[IndexEntry]) -> str:
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


def living_runners() -> Iterator[tuple[Path, IndexEntry]]:
    """Yield the runners on this machine that this user may use, each with its directory."""
    for root in runtime_roots():
        try:
            indexes = sorted(root.glob(f"*/{INDEX}"))
        except OSError:
            continue
        for index in indexes:
            entry = read_entry(index.parent)
            if entry is not None and _is_alive(entry.pid):
                yield index.parent, entry


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
