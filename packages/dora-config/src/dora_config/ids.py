"""Ids of nodes, inputs, outputs, machines and dataflows.

Each has its own type, which only its `parse_` function creates.
"""

from __future__ import annotations

import re
import uuid
from typing import NewType

from dora_config.errors import InvalidId

NodeId = NewType("NodeId", str)
DataId = NewType("DataId", str)
OutputId = NewType("OutputId", str)
MachineId = NewType("MachineId", str)
DataflowId = NewType("DataflowId", str)

RESERVED_NODE_ID = "dora"
"""First segment of timers and logs, hence not allowed for nodes."""

NODE_ID_PATTERN = r"^(?!dora$)[A-Za-z0-9_-][A-Za-z0-9_.-]*$"
DATA_ID_PATTERN = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$"
MACHINE_ID_PATTERN = r"^(?!\.+$)[A-Za-z0-9_.][A-Za-z0-9_.-]{0,199}$"
LABEL_KEY_PATTERN = r"^[A-Za-z0-9_.][A-Za-z0-9_.-]*$"
LABEL_PATTERN = r"^[A-Za-z0-9_.-]+$"

MAX_MACHINE_ID = 200
"""In characters, since machine ids are used in names of files and services."""

MAX_FILE_STEM = 200
"""Limit in characters for a node's id in a file name; file systems allow 255 in all."""
_DIGEST = 16

_ALLOWED = "letters, digits, '_', '.' and '-'"
_INVALID_IN_NODE_ID = re.compile(r"[^A-Za-z0-9_.-]")
_INVALID_IN_DATA_ID = re.compile(r"[^A-Za-z0-9_./-]")


def _check_characters(text: str, what: str, invalid: re.Pattern[str], allowed: str) -> None:
    if not text:
        raise InvalidId(text, f"{what}: identifier must not be empty")
    bad = invalid.search(text)
    if bad:
        raise InvalidId(
            text,
            f"{what} {text!r} contains invalid character {bad.group()!r}: allowed are {allowed}",
        )


def parse_node_id(text: str) -> NodeId:
    """Check a node's id; raise `InvalidId`."""
    _check_characters(text, "node id", _INVALID_IN_NODE_ID, _ALLOWED)
    if text == RESERVED_NODE_ID:
        raise InvalidId(text, "node id 'dora' is reserved for timers and logs")
    if text.startswith("."):
        raise InvalidId(text, f"node id {text!r} must not start with '.'")
    return NodeId(text)


def file_stem(node: str) -> str:
    """Return a node's id for use in file names, shortened if it is long.

    Shortened ones end in `~`, which ids do not contain, and a digest, so that they are unique.
    """
    if len(node) <= MAX_FILE_STEM:
        return node
    import hashlib

    digest = hashlib.sha256(node.encode()).hexdigest()[:_DIGEST]
    return f"{node[: MAX_FILE_STEM - _DIGEST - 1]}~{digest}"


def log_file_name(node: str) -> str:
    """Return the name of a node's log file; rotated ones end in `.1`, `.2` and so on."""
    return f"log_{file_stem(node)}.jsonl"


def parse_data_id(text: str, what: str = "data id") -> DataId:
    """Check the id of an input or output, which may have segments `a/b`; raise `InvalidId`."""
    _check_characters(text, what, _INVALID_IN_DATA_ID, f"{_ALLOWED}, with '/' between segments")
    if not all(text.split("/")):
        raise InvalidId(
            text,
            f"{what} {text!r} has an empty path segment: '/' must be between two names",
        )
    return DataId(text)


def parse_machine_id(text: str) -> MachineId:
    """Check a machine's id, as in `cluster.yml` and `--machine-id`; raise `InvalidId`."""
    if not text:
        raise InvalidId(text, "machine id must not be empty")
    bad = _INVALID_IN_NODE_ID.search(text)
    if bad:
        raise InvalidId(
            text,
            f"machine id {text!r} contains invalid character {bad.group()!r}: "
            "allowed are [a-zA-Z0-9_.-]",
        )
    if text.startswith("-"):
        raise InvalidId(text, f"machine id {text!r} must not start with '-'")
    if not text.strip("."):
        raise InvalidId(text, f"machine id {text!r} must not consist of dots")
    if len(text) > MAX_MACHINE_ID:
        raise InvalidId(
            text,
            f"machine id {text[:20]!r}... has {len(text)} characters: at most {MAX_MACHINE_ID} are "
            "allowed",
        )
    return MachineId(text)


def parse_label(text: str, what: str) -> str:
    """Check the key or value (`what`) of a label; raise `InvalidId`."""
    if not text:
        raise InvalidId(text, f"{what} must not be empty")
    bad = _INVALID_IN_NODE_ID.search(text)
    if bad:
        raise InvalidId(
            text,
            f"{what} {text!r} contains invalid character {bad.group()!r}: "
            "allowed are [a-zA-Z0-9_.-]",
        )
    if what.endswith("key") and text.startswith("-"):
        raise InvalidId(text, f"{what} {text!r} must not start with '-'")
    return text


def parse_dataflow_id(text: str) -> DataflowId:
    """Return a dataflow's id, a UUID in lower case; raise `InvalidId`."""
    try:
        return DataflowId(str(uuid.UUID(text)))
    except ValueError:
        raise InvalidId(text, f"dataflow id {text!r} is not a UUID") from None


def output_id(node: NodeId, output: DataId) -> OutputId:
    """Return the id of an output as a source: `node/output`."""
    return OutputId(f"{node}/{output}")
