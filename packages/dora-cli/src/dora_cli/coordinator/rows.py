"""Results of the REST API as dictionaries, for commands that do not import the messages.

A test compares the keys with those of the messages.
"""

from __future__ import annotations

from typing import TypedDict


class RestartRow(TypedDict):
    """As `RestartSummary`."""

    cause: str
    ago: float
    node: str | None
    daemon: str | None


class LinkRow(TypedDict):
    """As `LinkSummary`."""

    dataflow: str
    machine: str
    peer: str
    state: str
    reason: str | None
    endpoint: str | None
    rtt_us: int | None
    clock_offset_us: int | None


class DataflowRow(TypedDict):
    """As `DataflowSummary`."""

    uuid: str
    name: str | None
    status: str
    reason: str | None
    ended_ago: float | None
    restarts: int
    last_restart: RestartRow | None
    recoveries: int
    last_recovery: RestartRow | None
    nodes: int
    daemons: list[str]
    cpu: float
    memory: int
    links: list[LinkRow]


class NodeRow(TypedDict):
    """As `NodeSummary`, without what only `dora top` shows."""

    node: str
    dataflow: str
    dataflow_name: str | None
    daemon: str
    status: str
    pid: int | None
    cpu_percent: float | None
    memory_bytes: int | None
    restarts: int
    error: str | None


class MachineRow(TypedDict):
    """As `DaemonSummary`, without what only `dora cluster status` shows."""

    daemon: str
    connected: bool
    ended: bool
    clock_offset: float | None
    plain_links: bool


class NodeResultRow(TypedDict):
    """As `NodeResult`, without what no command shows."""

    node: str
    outcome: str
    message: str
    stderr_tail: list[str]


class EndedRow(TypedDict):
    """As `EndedDataflow`."""

    uuid: str
    name: str | None
    ok: bool
    reason: str | None
    nodes: list[NodeResultRow]
