"""Choose the backend of a new `Node`: its runner, a running dataflow, a test or a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from dora_node_api.backends.backend import Backend
from dora_node_api.errors import SetUpError
from dora_node_api.protocol.launch_config import CONFIG_VARIABLE, LaunchConfig
from dora_node_api.protocol.lockstep import SOCKET as LOCKSTEP

TEST_INPUTS_VARIABLE = "DORA_TEST_WITH_INPUTS"
RECORD_VARIABLE = "DORA_WRITE_EVENTS_TO"
NOTES_VARIABLE = "DORA_NOTE_EVENTS"
"""Set for nodes of a dataflow that is recorded from its start."""


def attach(
    node_id: str | None,
    living: Iterable[Backend] = (),
    daemon_port: int | None = None,
    dataflow: str | None = None,
) -> Backend:
    """Return a new backend, or the backend of the `living` nodes which has the same connection.

    `daemon_port` and `dataflow` select as in `Node`. Raises SetUpError with what is missing and
    what to do.
    """
    environ = os.environ
    living = tuple(living)
    if config := environ.get(CONFIG_VARIABLE):
        launch = LaunchConfig.from_text(config)
        arrays = launch.receives_arrays
        if launch.socket == LOCKSTEP:
            from dora_node_api.backends import lockstep

            return lockstep.connect(launch.node_id, living)
        backend = _connect(launch.socket, launch.node_id, launch.incarnation, living, arrays)
    elif inputs := environ.get(TEST_INPUTS_VARIABLE):
        from dora_node_api.backends.test_mode import open_test

        backend = open_test(inputs, environ)
    elif node_id is not None:
        from dora_node_api.backends.dynamic import find_runner

        backend = _connect(find_runner(node_id, daemon_port, dataflow), node_id, None, living)
    elif sys.stdin is not None and sys.stdin.isatty():
        from dora_node_api.backends.interactive import InteractiveBackend

        backend = InteractiveBackend(sys.stdin, sys.stdout)
    else:
        raise SetUpError(
            f"Could not initiate node from environment variable {CONFIG_VARIABLE}: it is not set,"
            " because no dataflow has started this process. Start it with `dora run`, or pass the"
            ' id of a dynamic node: Node("my-id")'
        )
    if backend in living:
        return backend
    if environ.get(NOTES_VARIABLE):
        from dora_node_api.backends.event_notes import note_events

        note_events(backend)
    if folder := environ.get(RECORD_VARIABLE):
        from dora_node_api.backends.recording import record_events

        try:
            record_events(backend, folder)
        except SetUpError:
            backend.close()
            raise
    return backend


def _connect(
    path: str,
    node_id: str,
    incarnation: int | None,
    living: Iterable[Backend],
    receives_arrays: bool = True,
) -> Backend:
    for backend in living:
        if backend.share(path, node_id):
            return backend
    from dora_node_api.backends.runner import connect

    if receives_arrays:
        # Before Hello: messages may arrive as soon as all nodes have sent it.
        from dora_node_api.data.arrow import load_pyarrow

        load_pyarrow()
    return connect(path, node_id, incarnation)
