"""Explanation of a dataflow's state: first cause, timeline, what it waits for; pure."""

from __future__ import annotations

from typing import Literal

from dora_config.protocol.envelope import Message

Role = Literal["before", "cause", "consequence", "reaction"]
"""``consequence``: it followed from the cause. ``reaction``: the system did it."""


class Occurrence(Message):
    """One line of the timeline."""

    at: float
    """Unix time by the coordinator's clock, corrected by the machine's clock offset."""
    machine: str | None = None
    """``None``: the coordinator, or a run without one."""
    node: str | None = None
    text: str
    """Continues a sentence that begins with the node or the dataflow."""
    problem: bool = False
    role: Role = "before"


class Cause(Message):
    """First failure."""

    at: float
    machine: str | None = None
    node: str | None = None
    text: str
    """A full sentence without its time."""
    stderr: tuple[str, ...] = ()
    """Last lines of the failed process."""
    resolved_at: float | None = None
    """Time at which the trouble ended; ``None``: it has not ended."""


class FlowProblem(Message):
    """A node, machine or edge whose present state stops or slows the flow of messages."""

    kind: Literal["slow", "stuck", "silent", "disk"]
    node: str | None = None
    machine: str | None = None
    text: str
    """A full sentence."""
    inputs: tuple[str, ...] = ()
    """Inputs that receive nothing because of this, as ``node/input``."""


class Explanation(Message):
    """Why a dataflow is in its state."""

    uuid: str = ""
    name: str | None = None
    status: str
    now: float
    """Unix time at which this was written, by the clock of the timeline."""
    summary: str
    """One sentence."""
    cause: Cause | None = None
    """``None``: nothing failed."""
    timeline: tuple[Occurrence, ...] = ()
    """Oldest first, from the last events before the cause."""
    findings: tuple[FlowProblem, ...] = ()
    waits_for: tuple[str, ...] = ()
    """Full sentences."""
    notes: tuple[str, ...] = ()
    """Gaps and surprises of this explanation, as full sentences."""
