"""Ids of nodes, inputs, outputs and machines, and labels of machines."""

from __future__ import annotations

import re

from dora_config.errors import InvalidId

RESERVED_NODE_ID = "dora"
"""First segment of timers and logs, hence not allowed for nodes."""
RUNNER_LOG = "dora~"
"""Prefix of the name of a runner's log in requests for logs; the name of the machine follows."""

NODE_ID_PATTERN = r"^(?!dora$)[A-Za-z0-9_-][A-Za-z0-9_.-]*$"
DATA_ID_PATTERN = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$"
MACHINE_ID_PATTERN = r"^(?!\.+$)[A-Za-z0-9_.][A-Za-z0-9_.-]{0,199}$"
LABEL_KEY_PATTERN = r"^[A-Za-z0-9_.][A-Za-z0-9_.-]*$"
LABEL_PATTERN = r"^[A-Za-z0-9_.-]+$"

MAX_MACHINE_ID = 200
"""Characters; machine ids are used in names of files and services."""

MAX_FILE_STEM = 200
"""Limit in characters for a node's id in a file name; file systems allow 255 in all."""
_DIGEST_DIGITS = 16
"""Hexadecimal digits of SHA-256 in a shortened name."""

_ALLOWED = "letters, digits, '_', '.' and '-'"
_INVALID = re.compile(r"[^A-Za-z0-9_.-]")
_INVALID_IN_DATA_ID = re.compile(r"[^A-Za-z0-9_./-]")


def _check_characters(
    text: str, what: str, invalid: re.Pattern[str] = _INVALID, allowed: str = _ALLOWED
) -> None:
    if not text:
        raise InvalidId(text, f"{what} must not be empty")
    bad = invalid.search(text)
    if bad:
        raise InvalidId(
            text,
            f"{what} {text!r} contains invalid character {bad.group()!r}: allowed are {allowed}",
        )


def parse_node_id(text: str) -> str:
    """Check a node's id; raise `InvalidId`."""
    _check_characters(text, "node id")
    if text == RESERVED_NODE_ID:
        raise InvalidId(text, "node id 'dora' is reserved for timers and logs")
    if text.startswith("."):
        raise InvalidId(text, f"node id {text!r} must not start with '.'")
    return text


def file_stem(node: str) -> str:
    """Return a node's id for use in file names, shortened if it is long.

    Shortened ones end in `~`, which ids do not contain, and a digest, so that they are unique.
    """
    if len(node) <= MAX_FILE_STEM:
        return node
    import hashlib

    digest = hashlib.sha256(node.encode()).hexdigest()[:_DIGEST_DIGITS]
    return f"{node[: MAX_FILE_STEM - _DIGEST_DIGITS - 1]}~{digest}"


def log_file_name(node: str) -> str:
    """Return the name of a node's log file; rotated ones end in `.1`, `.2` and so on."""
    return f"log_{file_stem(node)}.jsonl"


def parse_data_id(text: str, what: str = "data id") -> str:
    """Check the id of an input or output, which may have segments `a/b`; raise `InvalidId`."""
    _check_characters(text, what, _INVALID_IN_DATA_ID, f"{_ALLOWED}, with '/' between segments")
    if not all(text.split("/")):
        raise InvalidId(
            text, f"{what} {text!r} has an empty path segment: '/' must be between two names"
        )
    return text


def parse_machine_id(text: str) -> str:
    """Check a machine's id, as in `cluster.yml` and `--machine-id`; raise `InvalidId`."""
    _check_characters(text, "machine id")
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
    return text


def parse_label(text: str, what: str) -> str:
    """Check the key or value (`what`) of a label; raise `InvalidId`."""
    _check_characters(text, what)
    if what.endswith("key") and text.startswith("-"):
        raise InvalidId(text, f"{what} {text!r} must not start with '-'")
    return text
