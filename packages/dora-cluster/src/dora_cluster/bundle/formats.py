"""Versions of what a version of dora sends and stores; which versions work together.

See "Versions of formats" in CONTRIBUTING.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dora_config.dataflow.resolved import DATAFLOW_FORMAT
from dora_config.protocol import VERSION
from dora_config.protocol.links import LINK_PROTOCOL, LINK_VERSION
from dora_config.protocol.runner import RUNNER_PROTOCOL
from dora_coordinator.io.store_format import SCHEMA_VERSION
from dora_daemon.agent.records import RECORD_FORMAT

Version = tuple[int, int]
"""Major and minor."""
Formats = Mapping[str, Version]
"""Versions by the names below; ``bundle.json`` of a tree has the versions of the tree."""

CONTROL_PLANE: Final = "control plane protocol"
RUNNER: Final = "runner protocol"
LINK: Final = LINK_PROTOCOL
RECORDS: Final = "records of the daemon"
DATAFLOWS: Final = "format of dataflows"
STORE: Final = "store of the coordinator"

OURS: Final[Formats] = {
    CONTROL_PLANE: VERSION,
    RUNNER: RUNNER_PROTOCOL,
    LINK: LINK_VERSION,
    RECORDS: RECORD_FORMAT,
    DATAFLOWS: DATAFLOW_FORMAT,
    STORE: SCHEMA_VERSION,
}


def parse(found: Mapping[str, list[int]]) -> Formats:
    """Return the formats in a ``bundle.json``."""
    return {name: (version[0], version[1]) for name, version in found.items()}


def differs(ours: Formats, theirs: Formats, name: str) -> str | None:
    """Return the two versions of a protocol that do not work together; None if they do."""
    one, other = ours.get(name), theirs.get(name)
    if one is None or other is None or (one[0] == other[0] and abs(one[1] - other[1]) <= 1):
        return None
    return f"{name} {shown(other)} and {shown(one)}"


def unreadable(reader: Formats, writer: Formats, name: str) -> str | None:
    """Return the versions of a stored format that is too new for the reader; None otherwise."""
    one, other = reader.get(name), writer.get(name)
    if one is None or other is None or one[0] >= other[0]:
        return None
    return f"{name}: version {shown(other)}, it reads {one[0]}.x"


def shown(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
