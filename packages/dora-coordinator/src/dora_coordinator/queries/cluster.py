"""Access of queries to the coordinator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from dora_config.protocol.control import ControlAnswer, Decision
from dora_coordinator.coordinator import CoordinatorState
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.queries.daemon_calls import DaemonCalls
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import Begun
from dora_coordinator.state.events import DataflowChange, Event
from dora_coordinator.state.membership import Membership
from dora_coordinator.telemetry.spans import Outcome, SpanEvent, SpanKey, span


@dataclass(frozen=True, slots=True)
class QueryContext:
    """State of the coordinator that queries read, and the functions that change it."""

    state: CoordinatorState
    calls: DaemonCalls
    post: Callable[[Event], None]
    """Queues an event of the state machine."""
    store: Callable[[str, DataflowChange | None], Awaitable[None]]
    """Changes a dataflow and returns once that is stored, and earlier events are handled; raises
    RequestRefused.
    """
    decide: Callable[[Decision], Awaitable[Begun | ControlAnswer]]
    """Passes a request to the state machine; returns once what it changed is stored, and raises
    RequestRefused.
    """
    changed: Callable[[], Awaitable[None]]
    """Returns once further events were handled."""
    trace: Callable[[Sequence[SpanEvent]], None]

    @property
    def registry(self) -> DataflowRegistry:
        return self.state.registry

    @property
    def membership(self) -> Membership:
        return self.state.membership

    @property
    def settings(self) -> Settings:
        return self.state.settings

    def span(
        self, key: SpanKey, attributes: Mapping[str, str | int], parent: SpanKey | None = None
    ) -> AbstractContextManager[Outcome]:
        return span(self.trace, key, attributes, parent)
