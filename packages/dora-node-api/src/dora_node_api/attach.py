"""What a new `Node` belongs to: the runner that started it, a running dataflow, or a test."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from dora_node_api.backend import Backend
from dora_node_api.errors import SetUpError

CONFIG_VARIABLE = "DORA_NODE_CONFIG"
TEST_INPUTS_VARIABLE = "DORA_TEST_WITH_INPUTS"
RECORD_VARIABLE = "DORA_WRITE_EVENTS_TO"


def attach(node_id: str | None, daemon_port: int | None) -> Backend:
    """Connect. Raises SetUpError with what is missing and what to do."""
    environ = os.environ
    if config := environ.get(CONFIG_VARIABLE):
        backend = _started_by_runner(config)
    elif inputs := environ.get(TEST_INPUTS_VARIABLE):
        from dora_node_api.test_mode import open_test

        backend = open_test(inputs, environ)
    elif node_id is not None:
        from dora_node_api.dynamic import find_runner
        from dora_node_api.running import connect

        backend = connect(find_runner(node_id, daemon_port), node_id, None)
    elif sys.stdin is not None and sys.stdin.isatty():
        from dora_node_api.prompt import PromptBackend

        backend = PromptBackend(sys.stdin, sys.stdout)
    else:
        raise SetUpError(
            f"Could not initiate node from environment variable {CONFIG_VARIABLE}, which is not"
            " set: no dataflow has started this process. Start it with `dora run`, or give the node"
            ' id of a dynamic node: Node("my-id")'
        )
    if folder := environ.get(RECORD_VARIABLE):
        from dora_node_api.recording import RecordingBackend

        return RecordingBackend(backend, folder)
    return backend


def _started_by_runner(text: str) -> Backend:
    from dora_node_api.running import connect

    config = _parse(text)
    return connect(config["socket"], config["node_id"], config["incarnation"])


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
    from dora_node_api.control import PROTOCOL_VERSION

    if config.get("protocol") != PROTOCOL_VERSION:
        raise SetUpError(
            f"the runner speaks version {config.get('protocol')} of the node protocol, this"
            f" dora_node_api ({os.path.dirname(__file__)}) version {PROTOCOL_VERSION}:"  # noqa: PTH120
            " install the same version of dora on both sides"
        )
    expected: dict[str, type] = {"socket": str, "node_id": str, "incarnation": int}
    for name, kind in expected.items():
        if not isinstance(config.get(name), kind):
            raise SetUpError(f"{CONFIG_VARIABLE} has no `{name}` of type {kind.__name__}")
    return config
