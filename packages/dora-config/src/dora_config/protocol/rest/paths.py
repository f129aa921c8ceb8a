"""Paths and the header User-Agent of the REST API."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

DATAFLOWS: Final = "/api/dataflows"
MACHINES: Final = "/api/machines"
NODES: Final = "/api/nodes"
RECORDINGS: Final = "/api/recordings"
"""RECORDINGS/RECORDING/MACHINE/FILE is a recorded file, also in ranges."""
UPLOADS_PATH: Final = f"{RECORDINGS}/uploads"
"""Path to which machines upload the files that a client reads."""
FLEET: Final = "/api/fleet"
STATUS: Final = "/api/status"
OPENAPI: Final = "/api/openapi.json"
REQUEST: Final = "/api/request"
"""Requests of our own programs, as messages of `protocol/control.py`."""
JSON_TYPE: Final = "application/json"
SUCCESSOR: Final = "Dora-Successor"
"""Header of answers by a coordinator that was replaced: the address of the one that leads."""

_RESOURCES: Final = (DATAFLOWS, MACHINES, NODES, RECORDINGS, FLEET, STATUS, OPENAPI, REQUEST)
_AGENT: Final = re.compile(
    r"(?P<program>\S+)/(?P<release>\S+) protocol/(?P<major>\d+)\.(?P<minor>\d+)"
)


def is_rest(path: str) -> bool:
    """Return whether errors of a path are JSON."""
    return any(path == one or path.startswith(f"{one}/") for one in _RESOURCES)


def url(resource: str, *parts: str) -> str:
    """Return the path of a resource's item, for example its action."""
    return "/".join((resource, *(quote(part, safe="") for part in parts)))


def user_agent(program: str, release: str, protocol: tuple[int, int]) -> str:
    """Return the header User-Agent, whose version the coordinator checks."""
    return f"{program}/{release} protocol/{protocol[0]}.{protocol[1]}"


def parse_user_agent(header: str) -> tuple[str, str, int, int] | None:
    """Return program, release and protocol version; None for other programs, such as browsers."""
    found = _AGENT.fullmatch(header)
    if found is None:
        return None
    return found["program"], found["release"], int(found["major"]), int(found["minor"])
