"""Records of dataflows that survive a restart of the coordinator.

Field names are keys of the stored JSON (see `io/store_format.py`).
"""

from __future__ import annotations

from enum import StrEnum

from dora_config.protocol.dataflow import DataflowSpec, StartIdentity
from dora_config.protocol.envelope import Message
from dora_config.protocol.runner import DataflowResult


class Phase(StrEnum):
    """Phase of a dataflow."""

    PREPARING = "preparing"
    """Nodes are spawned and wait at the barrier; nothing has been released."""
    LINKING = "linking"
    """Every part is prepared; machines that exchange data connect to each other."""
    ROLLING_BACK = "rolling_back"
    """The start failed; prepared parts are being killed."""
    RELEASING = "releasing"
    """Every part is prepared and linked; releases were sent and may be repeated."""
    RUNNING = "running"
    RECOVERING = "recovering"
    """The coordinator was restarted and waits for the daemons' reports."""
    STOPPING = "stopping"
    FINISHED = "finished"
    """Ended; every node succeeded."""
    FAILED = "failed"
    """Ended; a node failed, or the dataflow as a whole."""

    @property
    def has_ended(self) -> bool:
        return self in (Phase.FINISHED, Phase.FAILED)


class PartState(StrEnum):
    """State of the nodes of one dataflow on one daemon, as last known to the coordinator."""

    PREPARING = "preparing"
    PREPARED = "prepared"
    RUNNING = "running"
    MISSING = "missing"
    """Lost; recovery spawns it again as soon as the daemon and the back-off permit."""
    ENDED = "ended"


class StoredPart(Message):
    """One part as it is stored."""

    daemon: str
    nodes: tuple[str, ...]
    state: PartState = PartState.PREPARING
    attempt: int = 1
    result: DataflowResult | None = None
    revision: int = 0
    """Number of changes of the part's nodes."""
    claimed: bool = False
    """Known from the record of another machine only; its own has not reported it yet."""


class DataflowRecord(Message):
    """One dataflow as it is stored, without its specification."""

    dataflow_id: str
    name: str | None
    phase: Phase
    parts: tuple[StoredPart, ...] = ()
    number: int
    """Position in the order of starts."""
    reason: str | None = None
    """Why the dataflow failed as a whole."""
    stopped_since: str | None = None
    """Why it was stopped, unless a user requested it."""
    unreported: bool = False
    """Failed only because no daemon reported it in time; it resumes when one does."""
    ended_at: float | None = None
    """Unix time of its end."""
    grace: float | None = None
    force: bool = False
    stop_requested: bool = False
    """Whether the stop was requested: parts that are found later are stopped too."""
    restart_as: str | None = None
    """Id of the dataflow that is started once this one has ended."""
    restart_spec: DataflowSpec | None = None
    """Specification of the dataflow that is started then; None: the one of this dataflow."""
    replaces: str | None = None
    """Id of the dataflow that ran and was stopped for this one. If the start fails, what ran is
    started again; with the same specification only if a machine has failed meanwhile."""
    begun: StartIdentity = StartIdentity()
    changes: int = 0
    """Number of changes of nodes, edges and parts."""


def new_record(
    dataflow_id: str,
    name: str | None,
    placement: dict[str, tuple[str, ...]],
    number: int,
    begun: StartIdentity,
    *,
    replaces: str | None = None,
) -> DataflowRecord:
    """Return the first record of a dataflow; ``placement`` maps daemons to node ids."""
    parts = tuple(StoredPart(daemon=daemon, nodes=nodes) for daemon, nodes in placement.items())
    return DataflowRecord(
        dataflow_id=dataflow_id,
        name=name,
        phase=Phase.PREPARING,
        parts=parts,
        number=number,
        begun=begun,
        replaces=replaces,
    )
