"""State machine of the coordinator: events and a clock reading in, commands out; pure.

The commands of one call are executed in order. `membership` and `registry` are public for reading;
only :meth:`CoordinatorState.handle` changes them.
"""

from __future__ import annotations

from dora_config.protocol import daemon as messages
from dora_config.protocol.builds import BuildEnded, BuildEvents
from dora_config.protocol.calls import PartResult, RunnerAnswered, RunnerReplies
from dora_config.protocol.control import MachinesRemoved, RemoveMachines, SetStandbys, StandbysSet
from dora_config.protocol.envelope import ProgramVersion, clean_text
from dora_config.protocol.recordings import RecorderAnswered
from dora_config.protocol.snapshot import MachineSample
from dora_config.protocol.topics import TopicChunk
from dora_coordinator.clients.request_dispatcher import RequestDispatcher
from dora_coordinator.dataflow.events import ParamChanged, TimerExpired
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.fleet.fleet import FleetControl
from dora_coordinator.settings import Settings
from dora_coordinator.state import commands as do, events
from dora_coordinator.state.membership import (
    LATE_HEARTBEAT,
    DaemonForgotten,
    MachineRemoved,
    MemberAdmitted,
    MemberLost,
    MemberRefused,
    MemberResumed,
    Membership,
    MembershipEvent,
    SilenceChecked,
)
from dora_coordinator.state.succession import Succession

_SILENCE = events.TimerKey("silence")
"""One timer for all daemons: the earliest time at which one can have been silent for too long."""


class CoordinatorState:
    def __init__(
        self,
        settings: Settings,
        party: ProgramVersion,
        authority: str = "",
        *,
        wall_offset: float = 0.0,
        succession: Succession | None = None,
    ) -> None:
        """``authority``: SHA-256 of the certificate that links trust; ``wall_offset``: Unix time
        minus the clock that events are timed with.
        """
        self.succession = succession or Succession()
        self.settings = settings
        self._party = party
        self._authority = authority
        self.wall_offset = wall_offset
        self.membership = Membership(settings)
        self.registry = DataflowRegistry(settings, self.membership, wall_offset=wall_offset)
        self.fleet = FleetControl(self.registry, self.membership, settings, wall_offset)
        self._clients = RequestDispatcher(
            self.registry,
            self.membership,
            settings,
            self._remove_machines,
            self._set_standbys,
            self.fleet,
        )
        self._silence_armed = False

    def handle(self, event: events.Event, now: float) -> list[do.Command]:
        commands = self._decide(event, now)
        while changes := self.registry.take_changes():
            for change in changes:
                commands += self._clients.dataflow_changed(change, now)
        return [*commands, *self._clients.settle()]

    def _decide(self, event: events.Event, now: float) -> list[do.Command]:
        match event:
            case events.StoreLoaded():
                self.membership.identities.load(event.machines)
                return [*self.registry.load(event, now), *self.fleet.load(event, now)]
            case events.FleetStepEnded():
                return self.fleet.step_ended(event, now)
            case events.DaemonMessageReceived():
                return self._daemon_message(event, now)
            case events.DaemonRegistered():
                return self._update_membership(event, now)
            case events.DaemonDisconnected():
                return self._update_membership(event, now)
            case events.TimerFired(key=key):
                return self._timer_fired(key, now)
            case events.ParamChangedByRunner(dataflow_id=dataflow_id, change=change):
                dataflow = self.registry.get(dataflow_id)
                changed = ParamChanged(change)
                saved = [] if dataflow is None else self.registry.apply(dataflow, changed, now)
                return [*saved, do.AnswerClient(event.client, event.number, RunnerReplies())]
            case (
                events.ClientRequested()
                | events.ClientCancelled()
                | events.ClientDisconnected()
                | events.TopicChunkTaken()
                | events.LogLinesSent()
                | events.BuildProgressSent()
            ):
                return self._clients.handle(event, now)

    # -------------------------------------------------------------------- daemons

    def _update_membership(self, event: MembershipEvent, now: float) -> list[do.Command]:
        commands: list[do.Command] = []
        for change in self.membership.handle(event, now):
            match change:
                case MemberAdmitted():
                    commands += self._admit(change, now)
                case MemberRefused(connection=connection, reason=reason):
                    commands.append(do.Log("warning", reason))
                    refusal = messages.RegistrationRefused(message=reason)
                    commands.append(do.CloseConnection(connection, refusal))
                case MemberResumed(member=member, silence=silence):
                    commands += self.registry.daemon_resumed(member.key, silence, now)
                case MemberLost():
                    commands += self._daemon_lost(change, now)
        return commands

    def _admit(self, admitted: MemberAdmitted, now: float) -> list[do.Command]:
        member = admitted.member
        assert member.connection is not None
        commands: list[do.Command] = []
        if admitted.enrolled is not None:
            commands.append(do.SaveMachine(admitted.enrolled))
        if admitted.replaced is not None:
            self.succession.disconnected(member.key)
            commands.append(do.CloseConnection(admitted.replaced))
            commands += self._clients.daemon_lost(member.key, now)
        welcome = messages.Registered(
            party=self._party,
            daemon=member.key,
            heartbeat_interval=self.settings.heartbeat_interval,
            silence_limit=self.settings.coordinator_silence_limit,
            authority=self._authority,
            certificate_name=member.certificate_name,
            coordinators=self.succession.coordinators,
        )
        host = clean_text(member.register.host, limit=100)
        return [
            *commands,
            do.CancelTimer(events.TimerKey("forget", member.key)),
            do.AdmitDaemon(member.connection, member.key),
            do.SendToDaemon(member.key, welcome),
            do.RenewToken(member.key),
            do.Log("info", f'daemon "{member.key}" connected from {member.address} ({host})'),
            *self.registry.daemon_registered(member, now),
            *self._clients.daemon_connected(member.key),
            *self._arm_silence(),
        ]

    def _daemon_message(self, event: events.DaemonMessageReceived, now: float) -> list[do.Command]:
        member = self.membership.on_connection(event.connection)
        if member is None:
            return []  # the connection was replaced
        commands = self._update_membership(event, now)
        message = event.message
        match message:
            case messages.Heartbeat(monotonic_ns=monotonic_ns):
                wall_ns = round((now + self.wall_offset) * 1e9)
                ack = messages.HeartbeatAck(monotonic_ns=monotonic_ns, coordinator_ns=wall_ns)
                commands.append(do.SendToDaemon(member.key, ack))
            case messages.PartChanged() | messages.PartLost() | messages.PartDescribed():
                commands += self.registry.part_message(member.key, message, now)
            case messages.SignRequest(request=request):
                commands.append(do.SignCertificate(member.key, request, member.digest))
            case messages.LogChunk() | TopicChunk() | BuildEvents() | BuildEnded() | PartResult():
                commands += self._clients.daemon_reply(member.key, message, now)
            case messages.CopyKept():
                self.succession.answered(member.key, message, now)
            case RunnerAnswered() | RecorderAnswered() | messages.PartHistory() | MachineSample():
                pass  # replies to queries, which `queries` collects
            case messages.CodeFound():
                pass  # likewise
            case messages.DaemonLeaving(hand_over=hand_over):
                manner = "hands over to its successor" if hand_over else "ends"
                commands.append(do.Log("info", f'daemon "{member.key}" {manner}'))
            case messages.Register() | messages.IdentityProof():
                text = f'ignored a second registration of daemon "{member.key}"'
                commands.append(do.Log("warning", text))
        return commands

    def _daemon_lost(self, lost: MemberLost, now: float) -> list[do.Command]:
        member, settings = lost.member, self.settings
        commands: list[do.Command] = []
        manner = "disconnected"
        silence = now - member.last_message
        late = silence > LATE_HEARTBEAT * settings.heartbeat_interval
        silent = silence if lost.silent or late else None
        self.succession.disconnected(member.key)
        if lost.silent:
            commands.append(do.CloseConnection(lost.connection))
            manner = f"disconnected: silent for {settings.daemon_silence_limit:g} s"
        listed = settings.ended_daemon_shown if member.left else settings.lost_daemon_shown
        commands += [
            do.Log("warning", f'daemon "{member.key}" {manner}'),
            do.ArmTimer(events.TimerKey("forget", member.key), now + listed),
            *self._clients.daemon_lost(member.key, now),
            *self.registry.daemon_lost(member.key, now, silent),
        ]
        if member.register.machine_id is None and not self.registry.unfinished_on(member.key):
            commands += self._update_membership(DaemonForgotten(member.key), now)
        return [*commands, *self._clients.continue_destruction()]

    def _remove_machines(
        self, requested: events.ClientRequested, request: RemoveMachines, now: float
    ) -> list[do.Command]:
        """Forget the keys of machines; if revoked, nothing of them remains in the cluster."""
        commands: list[do.Command] = []
        removed = []
        for machine in request.machines:
            record = self.membership.identities.remove(machine, revoke=request.revoke)
            if record is not None:
                commands.append(do.SaveMachine(record))
            elif self.membership.get(machine) is None:
                continue
            removed.append(machine)
            if request.revoke:
                commands += self._exclude(machine, now)
            elif record is not None:
                text = f'machine "{machine}": its key was removed; a new key may register once'
                commands.append(do.Log("warning", text))
        answer = MachinesRemoved(machines=tuple(removed))
        return [*commands, do.AnswerClient(requested.client, requested.number, answer)]

    def _set_standbys(
        self, requested: events.ClientRequested, request: SetStandbys
    ) -> list[do.Command]:
        answer = do.AnswerClient(requested.client, requested.number, StandbysSet())
        if not self.succession.set_standbys(request):
            return [answer]
        place = self.succession.coordinators
        members = self.membership.connected()
        return [
            do.SaveSuccession(),
            *(do.SendToDaemon(member.key, place) for member in members),
            answer,
        ]

    def _exclude(self, machine: str, now: float) -> list[do.Command]:
        """Disconnect a removed machine; its dataflows are stopped, and links to it end first."""
        reason = "it was removed from the cluster"
        commands: list[do.Command] = [do.Log("warning", f'machine "{machine}": {reason}')]
        member = self.membership.get(machine)
        if member is not None and member.connection is not None:
            refusal = messages.RegistrationRefused(message=f'machine "{machine}": {reason}')
            commands.append(do.CloseConnection(member.connection, refusal))
        commands += self.registry.machine_removed(machine, now)
        commands += self._update_membership(MachineRemoved(machine), now)
        return [*commands, *self._update_membership(DaemonForgotten(machine), now)]

    # --------------------------------------------------------------------- timers

    def _timer_fired(self, key: events.TimerKey, now: float) -> list[do.Command]:
        match key.purpose:
            case "silence":
                self._silence_armed = False
                return [*self._update_membership(SilenceChecked(), now), *self._arm_silence()]
            case "forget":
                return self._forget_daemon(key, now)
            case "destroy":
                return self._clients.continue_destruction(overdue=True)
            case "build":
                return self._clients.build_timed_out(key.subject, now)
            case "fleet":
                return self.fleet.tick(now)
            case "viewer":
                return self._clients.viewer_timer_fired(key.subject, now)
            case "start" | "link" | "recovery" | "retry" | "stop":
                dataflow = self.registry.get(key.subject)
                if dataflow is None:
                    return []
                return self.registry.apply(dataflow, TimerExpired(key.purpose, key.daemon), now)

    def _forget_daemon(self, key: events.TimerKey, now: float) -> list[do.Command]:
        """Stop listing a daemon, unless it is connected or a dataflow waits for it."""
        if not self.membership.is_connected(key.subject) and self.registry.unfinished_on(
            key.subject
        ):
            return [do.ArmTimer(key, now + self.settings.ended_daemon_shown)]
        return self._update_membership(DaemonForgotten(key.subject), now)

    def _arm_silence(self) -> list[do.Command]:
        deadline = self.membership.next_deadline()
        if self._silence_armed or deadline is None:
            return []
        self._silence_armed = True
        return [do.ArmTimer(_SILENCE, deadline)]
