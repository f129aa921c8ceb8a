"""What a daemon writes down about a part, so that the next daemon process can go on with it."""

from __future__ import annotations

from pydantic import Field

from dora_config.protocol.daemon import PartPhase, PartReport
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.envelope import Message
from dora_config.protocol.links import LinkReport, RemoteEdge
from dora_config.protocol.runner import DataflowResult


class PartRecord(Message):
    """One part on this machine."""

    dataflow_id: str
    attempt: int
    spec: DataflowSpec
    machine: str = ""
    """Key of this daemon, as it stands in ``edges``."""
    recovers: str | None = None
    """Why it was started again; None: it was not."""
    whole: bool = True
    """The dataflow has no other parts."""
    edges: tuple[RemoteEdge, ...] = ()
    """Those that leave or enter this machine."""
    addresses: dict[str, str] = Field(default_factory=dict)
    """IPs of the daemons at their other ends, by key."""
    phase: PartPhase = "preparing"
    result: DataflowResult | None = None
    stopping: bool = False
    forgotten: bool = False
    """The coordinator has the result; only the place of the logs is still of use."""
    runtime_dir: str = ""
    """Of its runner; empty before there is one."""
    runtime_token: str = ""
    """Lies in that directory as long as it is this runner's: numbers of directories are reused."""
    log_dirs: dict[str, str] = Field(default_factory=dict)
    """Folder of the log file of each node."""
    where: str = ""
    """A sentence about where its relative paths start."""
    ended_at: float = 0.0
    """Unix time."""

    @property
    def is_live(self) -> bool:
        return self.phase != "ended"

    def report(
        self, link: LinkReport | None = None, *, only_virtual_left: bool = False
    ) -> PartReport:
        """``link`` and ``only_virtual_left``: what its runner said of them last."""
        return PartReport(
            dataflow_id=self.dataflow_id,
            attempt=self.attempt,
            phase="stopping" if self.is_live and self.stopping else self.phase,
            result=self.result,
            link=link if self.is_live else None,
            stopped=self.stopping,
            only_virtual_left=only_virtual_left and self.is_live,
        )
