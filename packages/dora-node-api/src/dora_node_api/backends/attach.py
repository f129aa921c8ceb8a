"""What a new `Node` belongs to: the runner that started it, a running dataflow, or a test."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any

import dora_node_api
from dora_node_api.backends.backend import Backend
from dora_node_api.errors import SetUpError

CONFIG_VARIABLE = "DORA_NODE_CONFIG"
TEST_INPUTS_VARIABLE = "DORA_TEST_WITH_INPUTS"
RECORD_VARIABLE = "DORA_WRITE_EVENTS_TO"


def attach(node_id: str | None, daemon_port: int | None, living: Iterable[Backend] = ()) -> Backend:
    """Connect, or share the connection that one of the `living` is: a node has one in a process.

    Raises SetUpError with what is missing and what to do.
    """
    environ = os.environ
    living = tuple(living)
    if config := environ.get(CONFIG_VARIABLE):
        backend = _started_by_runner(config, living)
    elif inputs := environ.get(TEST_INPUTS_VARIABLE):
        from dora_node_api.backends.test_mode import open_test

        backend = open_test(inputs, environ)
    elif node_id is not None:
        from dora_node_api.backends.dynamic import find_runner

        backend = _connect(find_runner(node_id, daemon_port), node_id, None, living)
    elif sys.stdin is not None and sys.stdin.isatty():
        from dora_node_api.backends.prompt import PromptBackend

        backend = PromptBackend(sys.stdin, sys.stdout)
    else:
        raise SetUpError(
            f"Could not initiate node from environment variable {CONFIG_VARIABLE}, which is not"
            " set: no dataflow has started this process. Start it with `dora run`, or give the node"
            ' id of a dynamic node: Node("my-id")'
        )
    folder = environ.get(RECORD_VARIABLE)
    if not folder or backend in living:
        return backend
    from dora_node_api.backends.recording import RecordingBackend

    return RecordingBackend(backend, folder)


def _started_by_runner(text: str, living: Iterable[Backend]) -> Backend:
    config = _parse(text)
    return _connect(config["socket"], config["node_id"], config["incarnation"], living)


def _connect(
    path: str, node_id: str, incarnation: int | None, living: Iterable[Backend]
) -> Backend:
    for backend in living:
        if backend.share(path, node_id):
            return backend
    from dora_node_api.backends.runner import connect

    return connect(path, node_id, incarnation)


def _parse(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except ValueError:
        config = None
    if not isinstance(config, dict) or config.get("dora") != "python":
        raise SetUpError(
            f"{CONFIG_VARIABLE} was not written by this dora: the process was started by another"
            " program of that name (dora-rs?). Start the dataflow with the `dora` of the package"
            " dora-cli of dora for Python"
        )
    from dora_node_api.protocol.messages import PROTOCOL_VERSION

    if config.get("protocol") != PROTOCOL_VERSION:
        package = os.path.dirname(dora_node_api.__file__)  # noqa: PTH120
        raise SetUpError(
            f"the runner speaks version {config.get('protocol')} of the node protocol, this"
            f" dora_node_api ({package}) version {PROTOCOL_VERSION}:"
            " install the same version of dora on both sides"
        )
    expected: dict[str, type] = {"socket": str, "node_id": str, "incarnation": int}
    for name, kind in expected.items():
        if not isinstance(config.get(name), kind):
            raise SetUpError(f"{CONFIG_VARIABLE} has no `{name}` of type {kind.__name__}")
    return config
