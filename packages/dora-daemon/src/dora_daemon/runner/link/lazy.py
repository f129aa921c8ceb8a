"""Creates the link supervisor when the first edge crosses machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dora_config.protocol.links import LinkPlan

if TYPE_CHECKING:
    from dora_daemon.runner.link.supervisor import LinkSupervisor


class LazyLink:
    """Most dataflows run on one machine and do not import the link."""

    def __init__(self, create: Callable[[LinkPlan, str | None], LinkSupervisor]) -> None:
        self._create = create
        self.supervisor: LinkSupervisor | None = None

    def set_plan(self, plan: LinkPlan, credentials: str | None) -> None:
        """Set the streams; call this before queues of nodes are created, and ``apply`` after."""
        if self.supervisor is None:
            self.supervisor = self._create(plan, credentials)
        else:
            self.supervisor.set_plan(plan, credentials)

    def get(self) -> LinkSupervisor:
        """Return the supervisor, which a plan has created before."""
        assert self.supervisor is not None
        return self.supervisor

    def close(self) -> None:
        if self.supervisor is not None:
            self.supervisor.close()
