"""Values of the options of `dora top`; imports nothing, so that help texts are fast."""

from __future__ import annotations

from enum import StrEnum


class View(StrEnum):
    """Tables that are shown."""

    ALL = "all"
    NODES = "nodes"
    EDGES = "edges"


class SortKey(StrEnum):
    """Orders of rows."""

    NAME = "name"
    CPU = "cpu"
    MEMORY = "memory"
    RESTARTS = "restarts"
    QUEUE = "queue"
    MESSAGES = "messages"
    BYTES = "bytes"
    DROPS = "drops"
    LATENCY = "latency"
