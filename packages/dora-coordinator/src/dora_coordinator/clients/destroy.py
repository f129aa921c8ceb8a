"""End of the coordinator at a client's request: dataflows, then daemons, then itself; pure."""

from __future__ import annotations

from dora_config.protocol.control import Destroy, Destroyed, EndedDataflow
from dora_config.protocol.daemon import EndDaemon
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.dataflow.events import StopRequested
from dora_coordinator.dataflow.registry import DataflowRegistry, RequestRefused
from dora_coordinator.settings import Settings
from dora_coordinator.state import commands as do
from dora_coordinator.state.events import ClientRequested, TimerKey
from dora_coordinator.state.membership import Membership


class Destruction:
    def __init__(
        self, registry: DataflowRegistry, membership: Membership, settings: Settings
    ) -> None:
        self._registry = registry
        self._membership = membership
        self._settings = settings
        self._requested_by: ClientRequested | None = None
        self._left: set[str] = set()
        """Dataflows that have not ended."""
        self._ended: list[EndedDataflow] = []
        self._daemons_ended = False
        self._done = False

    @property
    def is_requested(self) -> bool:
        return self._requested_by is not None

    def request(self, requested: ClientRequested, destroy: Destroy, now: float) -> list[do.Command]:
        """Raises :class:`RequestRefused`."""
        live = self._registry.live()
        if live and not destroy.force:
            names = ", ".join(dataflow.label for dataflow in live)
            raise RequestRefused(
                "conflict", f"dataflows are still running: {names}; stop them first, or use --force"
            )
        self._requested_by = requested
        self._left = {dataflow.id for dataflow in live}
        self._ended = []
        timer = do.ArmTimer(TimerKey("destroy"), now + self._settings.destroy_timeout)
        commands: list[do.Command] = [timer]
        for dataflow in live:
            commands += self._registry.apply(dataflow, StopRequested(), now)
        return [*commands, *self.proceed()]

    def dataflow_ended(self, dataflow: Dataflow) -> list[do.Command]:
        if dataflow.id in self._left:
            self._left.discard(dataflow.id)
            self._ended.append(dataflow.ended())
        return self.proceed()

    def proceed(self, *, overdue: bool = False) -> list[do.Command]:
        """End the daemons after the dataflows, then the coordinator; ``overdue``: end now."""
        requested = self._requested_by
        if requested is None or self._done or (self._left and not overdue):
            return []
        commands: list[do.Command] = []
        daemons = self._membership.connected()
        if not self._daemons_ended:
            self._daemons_ended = True
            commands = [do.SendToDaemon(member.key, EndDaemon()) for member in daemons]
        if daemons and not overdue:
            return commands
        self._done = True
        left = {*self._registry.unfinished_daemons(), *(member.key for member in daemons)}
        answer = Destroyed(dataflows=tuple(self._ended), left=tuple(sorted(left)))
        return [
            *commands,
            do.AnswerClient(requested.client, requested.number, answer),
            do.EndCoordinator(),
        ]
