"""The format of ``index.json``."""

from __future__ import annotations

import json

import pytest

from dora_node_api.errors import ControlError
from dora_node_api.protocol.runner_index import FORMAT, IndexEntry, decode, encode

ENTRY = IndexEntry(
    dataflow_id="0190-id",
    name="demo",
    nodes=("camera", "plot"),
    dynamic_nodes=("plot",),
    pid=42,
    start_time=4711,
    boot_id="boot",
    foreground=True,
    machine_id="arm",
    daemon_port=53291,
)
GOLDEN = (
    '{"format": 1, "dataflow_id": "0190-id", "name": "demo", "nodes": ["camera", "plot"],'
    ' "dynamic_nodes": ["plot"], "pid": 42, "start_time": 4711, "boot_id": "boot",'
    ' "foreground": true, "machine_id": "arm", "socket": "n", "whole": true,'
    ' "daemon_port": 53291}'
)


def test_golden_bytes() -> None:
    assert FORMAT == 1
    assert encode(ENTRY) == GOLDEN
    assert decode(GOLDEN) == ENTRY


def test_unknown_keys_are_ignored_and_optional_ones_have_defaults() -> None:
    values = json.loads(GOLDEN)
    for key in ("format", "machine_id", "socket"):
        del values[key]
    entry = decode(json.dumps({**values, "new": 1}))
    assert (entry.machine_id, entry.socket) == (None, "n")


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"nodes": 1, "dynamic_nodes": []}'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises((ValueError, ControlError)):
        decode(text)


def test_another_format_is_refused() -> None:
    with pytest.raises(ControlError, match="not an index of format 1"):
        decode(GOLDEN.replace('"format": 1', '"format": 2'))
