"""A build over several machines: what is asked, what comes in between, what was made; does no I/O.

Each daemon prepares the nodes that it is to run and remembers, under the id of the build, where
they lie. `dora start` names that id; so does recovery.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dora_config.protocol.dataflow import DataflowSpec, DataflowUuid
from dora_config.protocol.envelope import Message


class BuildSettings(Message):
    """How nodes are prepared; ``uv`` is said by the specification."""

    offline: bool = False
    parallel: bool = False
    """Several nodes of one machine at once."""
    rebuild: bool = False
    """Also what has been built with the same inputs."""
    commits: dict[str, str] | None = None
    """By node id: the commits of a lock file, which git sources then follow."""


class NodeBuildEvent(Message):
    """Something that happened to one node.

    ``text`` is, by ``what``: the step that begins, why one is skipped, a line that was printed,
    nothing, or what went wrong.
    """

    node: str
    what: Literal["step", "skipped", "output", "built", "failed"]
    text: str = ""
    seconds: float = 0.0
    """How long it took, for ``built``."""


class FailedNode(Message):
    """Why one node could not be prepared; ``output`` is the tail of what the step printed."""

    node: str
    message: str
    output: tuple[str, ...] = ()


class PreparedNode(Message):
    """A node that is ready, and the commit its git source is at."""

    node: str
    commit: str | None = None


# ------------------------------------------------------------------- coordinator -> daemon


class BuildPart(Message):
    """Prepare these nodes; answered with :class:`BuildEnded`."""

    kind: Literal["build_part"] = "build_part"
    build_id: DataflowUuid
    spec: DataflowSpec
    """With only the nodes that this daemon is to prepare."""
    settings: BuildSettings = BuildSettings()


class CancelBuild(Message):
    """Nobody wants the build any more: end its commands. Not answered."""

    kind: Literal["cancel_build"] = "cancel_build"
    build_id: DataflowUuid


class BuildEventsAck(Message):
    """The reader has taken the last :class:`BuildEvents`: the next one may come."""

    kind: Literal["build_news_taken"] = "build_news_taken"
    build_id: DataflowUuid


# ------------------------------------------------------------------- daemon -> coordinator


class BuildEvents(Message):
    """News of a build; the next come after :class:`BuildEventsAck`."""

    kind: Literal["build_told"] = "build_told"
    build_id: DataflowUuid
    news: tuple[NodeBuildEvent, ...] = ()
    left_out: int = 0
    """Printed lines before these that the reader was too slow for."""


class BuildEnded(Message):
    """All nodes are prepared and remembered, or some could not be."""

    kind: Literal["build_ended"] = "build_ended"
    build_id: DataflowUuid
    nodes: tuple[PreparedNode, ...] = ()
    failures: tuple[FailedNode, ...] = ()
    problem: str | None = None
    """Set when the build as a whole came to nothing."""


# ------------------------------------------------------------------------- CLI, coordinator


class BuildDataflow(Message):
    """Have each daemon prepare its nodes; progress :class:`BuildTriggered` and
    :class:`BuildProgress`, answer :class:`Built`.
    """

    kind: Literal["build"] = "build"
    spec: DataflowSpec
    settings: BuildSettings = BuildSettings()


class BuildTriggered(Message):
    kind: Literal["build_triggered"] = "build_triggered"
    build_id: str


class BuildProgress(Message):
    """What a daemon told; see :class:`BuildEvents`."""

    kind: Literal["build_progress"] = "build_progress"
    build_id: str
    daemon: str
    news: tuple[NodeBuildEvent, ...] = ()
    left_out: int = 0


class BuiltNode(Message):
    """A node, the daemon that prepared it, and the commit of its git source."""

    node: str
    daemon: str
    commit: str | None = None


class Built(Message):
    kind: Literal["built"] = "built"
    build_id: str
    nodes: tuple[BuiltNode, ...] = Field(default=())
    """Those that had something to prepare."""
