"""Requests to runners, forwarded from the CLI through coordinator and daemon; no I/O.

The reply takes the same way back. A change of nodes or edges (:class:`ChangePart`) is checked by
the coordinator and decided by the runner. The daemon stores and describes the nodes that run
afterwards (``PartDescribed`` in `daemon`), and from that the coordinator updates its specification
and the links of the other machines.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dora_config.protocol.dataflow import WholeDataflow
from dora_config.protocol.envelope import DataflowUuid, Message
from dora_config.protocol.links import RemoteEdge
from dora_config.protocol.runner import (
    DeleteParam,
    GetDetails,
    GetParams,
    GetStatistics,
    GraphChange,
    HoldNode,
    Publish,
    ReloadCode,
    RestartNode,
    RunnerReply,
    SetParam,
    StopNode,
)

NodeRequest = Annotated[
    GetStatistics
    | StopNode
    | RestartNode
    | HoldNode
    | SetParam
    | DeleteParam
    | GetParams
    | GetDetails
    | Publish
    | ReloadCode,
    Field(discriminator="kind"),
]
"""Requests that are forwarded: those that do not change the coordinator's state of a dataflow."""


class RunnerCall(Message, kind="runner_call"):
    """Coordinator to daemon: forward a request to the runner of a part; answered with its reply."""

    dataflow_id: DataflowUuid
    request: NodeRequest


class PartReply(Message):
    """Reply of the runner of one part."""

    daemon: str
    reply: RunnerReply


class RunnerReplies(Message, kind="runner_replies"):
    """Answer to `CallRunner`."""

    replies: tuple[PartReply, ...] = ()
    problems: tuple[str, ...] = ()
    """Daemons without a reply, with the reason."""


class PartLinks(Message):
    """Edges between a part and other machines, and those machines by the keys of their daemons."""

    edges: tuple[RemoteEdge, ...] = ()
    """Edges that leave or enter this machine; empty: the part has no link."""
    addresses: dict[str, str] = Field(default_factory=dict)
    """IP addresses of the daemons at the other ends, as seen by the coordinator; used to choose a
    local address that reaches them."""
    names: dict[str, str] = Field(default_factory=dict)
    """Common names in the certificates of these daemons."""
    whole: bool = True
    """Whether this part has all nodes of the dataflow."""


class LinkPart(Message, kind="link_part"):
    """Set the links of a running part; idempotent."""

    dataflow_id: DataflowUuid
    attempt: int
    links: PartLinks
    whole: WholeDataflow | None = None
    """Description of all parts for the machine to keep; None: unchanged."""


class ChangePart(Message, kind="change_part"):
    """Set the links of a running part, then change its nodes.

    Answered with :class:`Done`; ``PartDescribed`` was sent before.
    """

    dataflow_id: DataflowUuid
    attempt: int
    links: PartLinks
    change: GraphChange
