"""Messages of builds on several machines; no I/O.

Each daemon prepares its nodes and stores their locations under the id of the build. `dora start`
and recovery refer to that id.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dora_config.dataflow.resolved import NodeLocation
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.envelope import DataflowUuid, FollowedRequest, Message


class BuildSettings(Message):
    """Settings of a build; ``uv`` is part of the specification."""

    offline: bool = False
    parallel: bool = False
    """Build several nodes of one machine at once."""
    commits: dict[str, str] | None = None
    """Commits of a lock file by node id; git sources are checked out at these."""


BuildStage = Literal["started", "step", "skipped", "output", "built", "failed"]


class NodeBuildEvent(Message):
    """Event in the build of one node.

    ``text`` is the step that begins, the reason why it is skipped, a line of output, or the error.
    """

    node: str
    what: BuildStage
    """``started`` is not sent to other processes."""
    text: str = ""
    seconds: float = 0.0
    """Duration of the build, for ``built``."""


class FailedNode(Message):
    """Why one node could not be prepared; the output of the step was sent before."""

    node: str
    message: str


class BuiltNode(Message):
    """A node that is ready: its place there, and the commit of its git source."""

    node: str
    daemon: str = ""
    """Empty: of this machine."""
    place: NodeLocation = NodeLocation()
    commit: str | None = None


# ------------------------------------------------------------------- coordinator -> daemon


class BuildPart(Message, kind="build_part"):
    """Prepare nodes; answered with :class:`BuildEnded`."""

    build_id: DataflowUuid
    spec: DataflowSpec
    """Contains only the nodes of this daemon."""
    settings: BuildSettings = BuildSettings()
    replaces: DataflowUuid | None = None
    """Running dataflow whose nodes these will replace."""


class CancelBuild(Message, kind="cancel_build"):
    """Cancel a build and end its commands; not answered."""

    build_id: DataflowUuid


class BuildEventsAck(Message, kind="build_events_ack"):
    """Acknowledge the last :class:`BuildEvents`, so that the next may be sent."""

    build_id: DataflowUuid


# ------------------------------------------------------------------- daemon -> coordinator


class BuildEvents(Message, kind="build_events"):
    """Events of a build; the next are sent after :class:`BuildEventsAck`."""

    build_id: DataflowUuid
    events: tuple[NodeBuildEvent, ...] = ()
    dropped: int = 0
    """Number of output lines dropped before these because the reader was slow."""


class BuildEnded(Message, kind="build_ended"):
    """Result of a build: prepared nodes, or failures."""

    build_id: DataflowUuid
    nodes: tuple[BuiltNode, ...] = ()
    failures: tuple[FailedNode, ...] = ()
    problem: str | None = None
    """Why the build failed as a whole."""


# ------------------------------------------------------------------------- CLI, coordinator


class BuildTriggered(Message, kind="build_triggered"):
    build_id: str


class BuildProgress(Message, kind="build_progress"):
    """Events from one daemon; see :class:`BuildEvents`."""

    build_id: str
    daemon: str
    events: tuple[NodeBuildEvent, ...] = ()
    dropped: int = 0


class Built(Message, kind="built"):
    build_id: str
    nodes: tuple[BuiltNode, ...] = Field(default=())
    """Nodes that had something to prepare."""


class BuildDataflow(Message, FollowedRequest[Built, BuildTriggered | BuildProgress], kind="build"):
    """Build on all daemons."""

    spec: DataflowSpec
    settings: BuildSettings = BuildSettings()
    replaces: DataflowUuid | None = None
