"""One part of a dataflow and the messages about it; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from dora_config.protocol import daemon as messages
from dora_config.protocol.calls import LinkPart, PartLinks
from dora_config.protocol.dataflow import DataflowSpec, WholeDataflow
from dora_config.protocol.links import PeerEndpoint
from dora_config.protocol.runner import DataflowResult
from dora_config.retry import Retry
from dora_coordinator.state.commands import SendToDaemon
from dora_coordinator.state.records import PartState, StoredPart

_MAX_LISTED: Final = 8
"""Most daemons that a sentence lists; further ones are counted."""


@dataclass(slots=True)
class Part:
    """The nodes of one dataflow on one daemon."""

    dataflow_id: str
    daemon: str
    nodes: tuple[str, ...]
    state: PartState
    attempt: int
    result: DataflowResult | None
    revision: int = 0
    """Number of changes of the part's nodes."""
    claimed: bool = False
    """Known from the record of another machine only; its own has not reported it yet."""
    fresh: bool = False
    """Whether the part was added to the running dataflow and has not run yet."""
    revived: bool = False
    """Whether the part had ended, was started again by a user, and has not run yet."""
    only_virtual_left: bool = False
    """Last report: only nodes with timers or logs as inputs still run."""
    problem: str | None = None
    """Last report: why the daemon cannot control its nodes, and the remedy."""
    asked_for: int | None = None
    """Number of changes that the machine reported when the last request for them was sent."""
    reported: bool = False
    """Whether a daemon has reported the part since this coordinator started."""
    recovery_reason: str | None = None
    """Reason of the present or last recovery."""
    recovered_at: float | None = None
    """Time of the last recovery by the coordinator's clock."""
    retry: Retry = field(default_factory=Retry)
    """Earliest time of the next spawn."""

    @property
    def ended(self) -> bool:
        return self.state is PartState.ENDED

    @property
    def may_have_ended(self) -> bool:
        """Whether an earlier coordinator may have stored its end after this copy of the store."""
        return not (self.reported or self.fresh)

    def recovery_text(self, dataflow: str) -> str:
        """Return the log line for a recovery."""
        nodes = ", ".join(self.nodes)
        where = f'of {dataflow} on daemon "{self.daemon}"'
        return f"auto-recovery: re-spawning {nodes} {where}: {self.recovery_reason}"

    def recovery_waits_text(self, dataflow: str, seconds: float) -> str:
        """Return the log line for a recovery that is delayed by ``seconds``."""
        where = f'of {dataflow} on daemon "{self.daemon}"'
        return f"auto-recovery {where} waits {seconds:.0f} s: {self.recovery_reason}"

    def record(self) -> StoredPart:
        return StoredPart.model_validate(self, from_attributes=True)

    def prepare(self, spec: DataflowSpec, links: PartLinks, whole: WholeDataflow) -> SendToDaemon:
        """Return the message to spawn the part; ``spec`` contains only its nodes."""
        message = messages.PreparePart(
            dataflow_id=self.dataflow_id,
            attempt=self.attempt,
            spec=spec,
            machine=self.daemon,
            recovers=self.recovery_reason,
            links=links,
            revision=self.revision,
            whole=whole,
        )
        return SendToDaemon(self.daemon, message)

    def link(self, links: PartLinks, whole: WholeDataflow) -> SendToDaemon:
        message = LinkPart(
            dataflow_id=self.dataflow_id, attempt=self.attempt, links=links, whole=whole
        )
        return SendToDaemon(self.daemon, message)

    def describe(self) -> SendToDaemon:
        return SendToDaemon(self.daemon, messages.DescribePart(dataflow_id=self.dataflow_id))

    def connect(
        self, peers: tuple[PeerEndpoint, ...] = (), ended: tuple[str, ...] = ()
    ) -> SendToDaemon:
        message = messages.ConnectPart(
            dataflow_id=self.dataflow_id, attempt=self.attempt, peers=peers, ended=ended
        )
        return SendToDaemon(self.daemon, message)

    def release(self) -> SendToDaemon:
        message = messages.ReleasePart(dataflow_id=self.dataflow_id, attempt=self.attempt)
        return SendToDaemon(self.daemon, message)

    def stop(self, grace: float | None, *, force: bool, reason: str) -> SendToDaemon:
        message = messages.StopPart(
            dataflow_id=self.dataflow_id, grace=grace, force=force, reason=reason
        )
        return SendToDaemon(self.daemon, message)

    def kill(self) -> SendToDaemon:
        message = messages.StopPart(dataflow_id=self.dataflow_id, reason="the dataflow has ended")
        return SendToDaemon(self.daemon, message)

    def forget(self) -> SendToDaemon:
        message = messages.ForgetPart(dataflow_id=self.dataflow_id, attempt=self.attempt)
        return SendToDaemon(self.daemon, message)


def names(parts: Iterable[Part]) -> str:
    """Return the parts' daemons, for a sentence."""
    daemons = [f'daemon "{part.daemon}"' for part in parts]
    shown = ", ".join(daemons[:_MAX_LISTED])
    further = len(daemons) - _MAX_LISTED
    return f"{shown} and {further} more" if further > 0 else shown
