"""The coordinator's state: events and a clock reading in, commands out; the one door; pure.

The commands of one call are carried out in order. Service and tests see the parts (`fleet`) to read
them; nobody but :meth:`CoordinatorState.handle` changes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from dora_config.protocol.builds import BuildEnded, BuildEvents
from dora_config.protocol.calls import RunnerAnswered
from dora_config.protocol.daemon import (
    Heartbeat,
    HeartbeatAck,
    Leaving,
    LogChunk,
    PartChanged,
    PartDescribed,
    PartLost,
    Register,
    Registered,
    RegistrationRefused,
    SignRequest,
)
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.envelope import ProgramVersion, clean_text, version_problem
from dora_config.protocol.topics import TopicChunk
from dora_coordinator.clients import builds
from dora_coordinator.clients.builds import Builds
from dora_coordinator.clients.log_streams import LogStreams
from dora_coordinator.clients.requests import Clients
from dora_coordinator.clients.runner_calls import RunnerCalls
from dora_coordinator.clients.topic_streams import TopicStreams
from dora_coordinator.dataflow.events import TimerExpired
from dora_coordinator.dataflow.records import DataflowRecord
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import (
    AdmitDaemon,
    ArmTimer,
    CancelTimer,
    CloseConnection,
    Command,
    Log,
    SendToDaemon,
    SignCertificate,
)
from dora_coordinator.state.events import (
    BuildProgressSent,
    ClientCancelled,
    ClientDisconnected,
    ClientRequested,
    DaemonDisconnected,
    DaemonMessageReceived,
    DaemonRegistered,
    Event,
    LogLinesSent,
    TimerFired,
    TimerKey,
    TopicChunkTaken,
)
from dora_coordinator.state.membership import Member

SILENCE = TimerKey("silence")
FORGET = "forget"
"""Purpose of the timers after which a daemon that is away is no longer listed."""


class CoordinatorState:
    def __init__(
        self,
        settings: Settings,
        party: ProgramVersion,
        authority: str = "",
        *,
        wall_offset: float = 0.0,
    ) -> None:
        """``authority``: SHA-256 of the certificate that links trust; ``wall_offset``: Unix time
        minus the clock that events are timed with.
        """
        self._settings = settings
        self._party = party
        self._authority = authority
        self.registry = DataflowRegistry(settings, wall_offset=wall_offset)
        self._streams = LogStreams(self.registry.membership)
        self._builds = Builds(settings)
        self._calls = RunnerCalls(self.registry.membership)
        self._topics = TopicStreams(self.registry.membership, settings)
        self._clients = Clients(
            self.registry, self._streams, self._builds, self._calls, self._topics, settings, party
        )
        self._silence_armed = False

    def load(
        self, stored: Iterable[tuple[DataflowRecord, DataflowSpec]], now: float
    ) -> list[Command]:
        """Start from what was stored; called once, before any event."""
        return self.registry.load(stored, now)

    def handle(self, event: Event, now: float) -> list[Command]:
        commands = self._decide(event, now)
        while self.registry.changes:
            dataflow, before = self.registry.changes.pop(0)
            commands += self._clients.phase_changed(dataflow, before, now)
        return [*commands, *self._topics.mend()]

    def _decide(self, event: Event, now: float) -> list[Command]:
        match event:
            case DaemonMessageReceived():
                return self._daemon_spoke(event, now)
            case DaemonRegistered():
                return self._daemon_registered(event, now)
            case DaemonDisconnected(connection=connection):
                member = self.registry.membership.disconnected(connection)
                return [] if member is None else self._daemon_lost(member, "disconnected", now)
            case ClientRequested():
                return self._clients.asked(event, now)
            case ClientCancelled(client=client, number=number):
                self._clients.cancelled(client, number)
                self._calls.cancel(client, number)
                return [
                    *self._streams.cancel(client, number),
                    *self._topics.cancel(client, number),
                    *self._builds.cancel(client, number),
                ]
            case TopicChunkTaken(client=client, number=number, stream=stream):
                return self._topics.taken(client, number, stream)
            case ClientDisconnected(client=client):
                self._clients.client_gone(client)
                self._calls.client_gone(client)
                return [
                    *self._streams.client_gone(client),
                    *self._topics.client_gone(client),
                    *self._builds.client_gone(client),
                ]
            case LogLinesSent(stream=stream):
                return self._streams.taken(stream)
            case BuildProgressSent(build_id=build_id, daemon=daemon):
                return self._builds.taken(build_id, daemon)
            case TimerFired(key=key):
                return self._timer_fired(key, now)
            case _ as unreachable:
                assert_never(unreachable)

    # -------------------------------------------------------------------- daemons

    def _daemon_registered(self, event: DaemonRegistered, now: float) -> list[Command]:
        register = event.register
        problem = version_problem(self._party, register.party)
        if problem is not None:
            refusal = RegistrationRefused(message=problem, permanent=True)
            log = Log("warning", f"daemon at {event.address} refused: {problem}")
            return [log, CloseConnection(event.connection, refusal)]
        admission = self.registry.membership.register(
            event.connection, register, event.address, now
        )
        if admission.refusal is not None:
            log = Log("warning", admission.refusal)
            refusal = RegistrationRefused(message=admission.refusal)
            return [log, CloseConnection(event.connection, refusal)]
        member = self.registry.membership.get(admission.key)
        assert member is not None
        commands: list[Command] = []
        if admission.replaced is not None:
            commands.append(CloseConnection(admission.replaced))
            commands += self._forget_conversations(admission.key)
        welcome = Registered(
            party=self._party,
            daemon=admission.key,
            heartbeat_interval=self._settings.heartbeat_interval,
            silence_limit=self._settings.coordinator_silence_limit,
            authority=self._authority,
        )
        host = clean_text(register.host, limit=100)
        return [
            *commands,
            CancelTimer(TimerKey(FORGET, admission.key)),
            AdmitDaemon(event.connection, admission.key),
            SendToDaemon(admission.key, welcome),
            Log("info", f'daemon "{admission.key}" connected from {event.address} ({host})'),
            *self.registry.registered(member, now),
            *self._arm_silence(),
        ]

    def _daemon_spoke(self, event: DaemonMessageReceived, now: float) -> list[Command]:
        message = event.message
        member = self.registry.membership.heard(event.connection, now)
        if member is None:
            return []  # a connection that was replaced
        match message:
            case Heartbeat(metrics=metrics):
                member.metrics_at = now
                member.metrics = {sample.dataflow_id: sample for sample in metrics}
                member.clock_offset = event.clock_offset
                return [SendToDaemon(member.key, HeartbeatAck())]
            case PartChanged() | PartLost() | PartDescribed():
                return self.registry.told(member.key, message, now)
            case SignRequest(request=request):
                return [SignCertificate(member.key, request)]
            case LogChunk():
                return self._streams.chunk(member.key, message)
            case TopicChunk():
                return self._topics.chunk(member.key, message)
            case BuildEvents():
                return self._builds.told(member.key, message)
            case BuildEnded():
                return self._builds.ended(member.key, message)
            case RunnerAnswered():
                return self._calls.answered(member.key, message)
            case Leaving(hand_over=hand_over):
                member.left = not hand_over
                manner = "hands over to its successor" if hand_over else "ends"
                return [Log("info", f'daemon "{member.key}" {manner}')]
            case Register():
                return [Log("warning", f'daemon "{member.key}" registered twice: ignored')]
            case _ as unreachable:
                assert_never(unreachable)

    def _daemon_lost(self, member: Member, how: str, now: float) -> list[Command]:
        shown = (
            self._settings.ended_daemon_shown if member.left else self._settings.lost_daemon_shown
        )
        return [
            Log("warning", f'daemon "{member.key}" {how}'),
            ArmTimer(TimerKey(FORGET, member.key), now + shown),
            *self._forget_conversations(member.key),
            *self.registry.lost(member, now),
            *self._clients.end_if_destroyed(),
        ]

    def _forget_conversations(self, daemon: str) -> list[Command]:
        """What was under way on a connection to a daemon ends with it."""
        return [
            *self._streams.daemon_lost(daemon),
            *self._topics.daemon_lost(daemon),
            *self._builds.daemon_lost(daemon),
            *self._calls.daemon_lost(daemon),
        ]

    # --------------------------------------------------------------------- timers

    def _timer_fired(self, key: TimerKey, now: float) -> list[Command]:
        if key == SILENCE:
            return self._drop_silent(now)
        if key.purpose == FORGET:
            return self._forget_daemon(key, now)
        if key.purpose == "destroy":
            return self._clients.end_if_destroyed(overdue=True)
        if key.purpose == builds.TIMER:
            return self._builds.timed_out(key.subject)
        dataflow = self.registry.get(key.subject)
        if dataflow is None:
            return []
        return self.registry.apply(dataflow, TimerExpired(key.purpose, key.daemon), now)

    def _forget_daemon(self, key: TimerKey, now: float) -> list[Command]:
        """A daemon has been away for long: list it no longer, unless a dataflow waits for it."""
        if self.registry.membership.is_connected(key.subject):
            return []
        if self.registry.unfinished_on(key.subject):
            return [ArmTimer(key, now + self._settings.ended_daemon_shown)]
        self.registry.membership.forget(key.subject)
        return []

    def _drop_silent(self, now: float) -> list[Command]:
        self._silence_armed = False
        commands: list[Command] = []
        for member in self.registry.membership.silent(now):
            connection = member.connection
            if connection is None:
                continue
            self.registry.membership.disconnected(connection)
            limit = self._settings.daemon_silence_limit
            commands.append(CloseConnection(connection))
            commands += self._daemon_lost(member, f"silent for {limit:g} s: given up", now)
        return [*commands, *self._arm_silence()]

    def _arm_silence(self) -> list[Command]:
        """One timer for all daemons: at the earliest moment one of them can have been silent."""
        deadline = self.registry.membership.next_deadline()
        if self._silence_armed or deadline is None:
            return []
        self._silence_armed = True
        return [ArmTimer(SILENCE, deadline)]
