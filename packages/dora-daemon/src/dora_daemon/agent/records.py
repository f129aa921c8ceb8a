"""Records that the next daemon process reads from disk; pure."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from dora_config.frozen import readable_by
from dora_config.protocol.calls import PartLinks
from dora_config.protocol.daemon import PartPhase
from dora_config.protocol.dataflow import DataflowSpec, WholeDataflow
from dora_config.protocol.envelope import Message
from dora_config.protocol.links import PeerEndpoint
from dora_config.protocol.runner import DataflowResult

RECORD_FORMAT: Final = (1, 0)
"""Major and minor version of a record; a new minor version has more optional keys."""
RecordFormat = Annotated[tuple[int, int], readable_by(RECORD_FORMAT)]


class FormerNodes(Message):
    """Nodes and links of a part before its last change; they ran without a failure."""

    spec: DataflowSpec
    links: PartLinks


class PartRecord(Message):
    """One part on this machine, with the fields of its ``PreparePart``."""

    format: RecordFormat = RECORD_FORMAT
    dataflow_id: str
    attempt: int
    spec: DataflowSpec
    machine: str = ""
    recovers: str | None = None
    links: PartLinks = PartLinks()
    revision: int = 0
    """Number of changes of the part's nodes."""
    whole: WholeDataflow = WholeDataflow()
    """Description of all parts of the dataflow, for a coordinator without its store."""
    relinked: bool = False
    """Whether the links were changed after the start of the runner."""
    phase: PartPhase = "preparing"
    result: DataflowResult | None = None
    ran: bool = False
    """Whether the nodes have run, so that the machine may start them without the coordinator."""
    starts: int = 0
    """Starts of this attempt that the machine made without the coordinator."""
    former: FormerNodes | None = None
    """Nodes to return to if the part fails repeatedly while the coordinator is away."""
    peers: tuple[PeerEndpoint, ...] = ()
    """Last endpoints of the peers of its link."""
    ended_peers: tuple[str, ...] = ()
    """Machines whose part of the dataflow has ended."""
    link_endpoint: str = ""
    """``HOST:PORT`` where its link listened last, so that peers find the next one there."""
    stopping: bool = False
    forgotten: bool = False
    """Whether reports leave the part out; its record keeps ``log_dirs`` for `dora logs`."""
    end_stored: bool = False
    """Whether a coordinator has stored the end. One that took over with an older copy may not have.
    """
    borrowed: bool = False
    """Whether the runner belongs to `dora run` or to a daemon. The agent of a command shows such a
    part, never starts it again, and leaves its result and files to the owner."""
    runtime_dir: str = ""
    """Directory of its runner; empty before it exists."""
    runtime_token: str = ""
    """Contents of the ``owner`` file in that directory, whose number may be reused later."""
    log_dirs: dict[str, str] = Field(default_factory=dict)
    """Folder of each node's log file, by node id."""
    where: str = ""
    """Sentence about the folder at which relative paths start."""
    history_file: str = ""
    """File of the runner's events; empty before the part is placed."""
    ended_at: float = 0.0
    """Unix time."""

    @property
    def is_live(self) -> bool:
        return self.phase != "ended"

    @property
    def starts_alone(self) -> bool:
        """Whether the machine may start it without the coordinator."""
        return self.ran and not (self.stopping or self.borrowed) and self.spec.offline == "run"


def cause_of(result: DataflowResult, where: str) -> tuple[str | None, str]:
    """Return the node and the sentence that best explain a failed start."""
    if result.error is not None:
        return None, f"{result.error}\n({where})" if where else result.error
    failed = result.root_causes[0]
    return failed.node, failed.message
