"""What is kept of a dataflow across restarts: its phase, its parts, how they ended."""

from __future__ import annotations

from enum import StrEnum

from dora_config.protocol.envelope import Message
from dora_config.protocol.runner import DataflowResult


class Phase(StrEnum):
    """Where a dataflow stands."""

    PREPARING = "preparing"
    """Nodes are spawned and held at the barrier; nothing has been released."""
    LINKING = "linking"
    """Every part was prepared; machines that exchange data get into touch."""
    ROLLING_BACK = "rolling_back"
    """The start failed; what was prepared is being killed."""
    RELEASING = "releasing"
    """Every part was prepared and linked; releases have been sent and may be repeated."""
    RUNNING = "running"
    RECOVERING = "recovering"
    """The coordinator was restarted and waits for the daemons' reports."""
    STOPPING = "stopping"
    FINISHED = "finished"
    """Ended, every node well."""
    FAILED = "failed"
    """Ended, with a failed node or a reason of its own."""

    @property
    def has_ended(self) -> bool:
        return self in (Phase.FINISHED, Phase.FAILED)


class PartState(StrEnum):
    """Where the nodes of one dataflow on one daemon stand, as far as the coordinator knows."""

    PREPARING = "preparing"
    PREPARED = "prepared"
    RUNNING = "running"
    MISSING = "missing"
    """Not there; recovery spawns it again as soon as it may."""
    ENDED = "ended"


class PartRecord(Message):
    """One part as it is stored."""

    daemon: str
    nodes: tuple[str, ...]
    state: PartState = PartState.PREPARING
    attempt: int = 1
    result: DataflowResult | None = None


class DataflowRecord(Message):
    """One dataflow as it is stored, without its specification (which never changes)."""

    dataflow_id: str
    name: str | None
    phase: Phase
    parts: tuple[PartRecord, ...] = ()
    number: int
    """Dataflows are numbered in the order of their starts."""
    reason: str | None = None
    stopped_since: str | None = None
    """Why it was stopped, unless a user asked for it."""
    unreported: bool = False
    """Failed only because no daemon reported it in time: it may still come back."""
    ended_at: float | None = None
    """Unix time of its end."""
    grace: float | None = None
    force: bool = False


def new_record(
    dataflow_id: str, name: str | None, placement: dict[str, tuple[str, ...]], number: int
) -> DataflowRecord:
    """The first record of a dataflow; ``placement`` has node ids by daemon."""
    parts = tuple(PartRecord(daemon=daemon, nodes=nodes) for daemon, nodes in placement.items())
    return DataflowRecord(
        dataflow_id=dataflow_id, name=name, phase=Phase.PREPARING, parts=parts, number=number
    )
