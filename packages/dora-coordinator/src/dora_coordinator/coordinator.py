"""State machine of the coordinator: turns events into commands; pure.

Requests that change state are dispatched here; `queries` has those that take several steps.

The commands of one call are executed in order. `membership` and `registry` are public for reading;
only :meth:`CoordinatorState.handle` changes them.
"""

from __future__ import annotations

from dora_config.protocol import control, daemon as messages, fleet as fleets
from dora_config.protocol.builds import BuildEnded, BuildEvents
from dora_config.protocol.calls import RunnerReplies
from dora_config.protocol.envelope import ProgramVersion, clean_text
from dora_config.protocol.topics import TopicChunk
from dora_coordinator.dataflow.events import StopRequested, TimerExpired
from dora_coordinator.dataflow.lifecycle import Lifecycle
from dora_coordinator.dataflow.registry import DataflowRegistry
from dora_coordinator.dataflow.views import dataflow_summary
from dora_coordinator.fleet.fleet import FleetControl
from dora_coordinator.settings import Settings
from dora_coordinator.state import commands as do, events
from dora_coordinator.state.commands import RequestRefused
from dora_coordinator.state.membership import LATE_HEARTBEAT, Member, MemberAdmitted, Membership
from dora_coordinator.state.succession import Succession

_RESTART_EVENTS = (events.TimerFired, events.DaemonRegistered, events.DaemonMessageReceived)
"""Events after which a dataflow that waits for its restart may start."""
_SILENCE = events.TimerKey("silence")
"""Timer of the earliest silence limit among all daemons."""


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
        self.registry = DataflowRegistry(
            settings,
            self.membership,
            wall_offset=wall_offset,
            epoch=lambda: self.succession.record.epoch,
        )
        self.fleet = FleetControl(self.registry, self.membership, settings, wall_offset)
        self._lifecycle = Lifecycle(self.registry, self.membership)
        self._ending = False
        """Whether a client has requested the end of the coordinator."""
        self._silence_armed = False

    def handle(self, event: events.Event, now: float) -> list[do.Command]:
        commands = self._decide(event, now)
        while ended := self.registry.take_ended():
            for dataflow in ended:
                commands += self._lifecycle.start_again(dataflow, now)
        if isinstance(event, _RESTART_EVENTS) and not self._ending:
            commands += self._lifecycle.continue_restarts(now)
        return [*commands, *self.registry.reconcile(now)]

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
                return self._register(event, now)
            case events.DaemonDisconnected(connection=connection):
                return self._disconnected(connection, now)
            case events.TimerFired(key=key):
                return self._timer_fired(key, now)
            case events.ChangeRequested(dataflow_id=dataflow_id, change=change):
                dataflow, saved = self.registry.get(dataflow_id), []
                if dataflow is not None and change is not None:
                    saved = self.registry.apply(dataflow, change, now)
                return [*saved, do.AnswerClient(event.client, RunnerReplies())]
            case events.NotStarted(name=name, step=step, reason=reason):
                return self.registry.history.start_refused(name, step, reason, now)
            case events.ClientRequested():
                return self._requested(event, now)
            case events.EndRequested():
                return [do.EndCoordinator()]

    # -------------------------------------------------------------------- daemons

    def _register(self, event: events.DaemonRegistered, now: float) -> list[do.Command]:
        found = self.membership.register(event, now)
        if isinstance(found, MemberAdmitted):
            return self._admit(found, now)
        refusal = messages.RegistrationRefused(message=found)
        return [do.Log("warning", found), do.CloseConnection(event.connection, refusal)]

    def _admit(self, admitted: MemberAdmitted, now: float) -> list[do.Command]:
        member = admitted.member
        assert member.connection is not None
        commands: list[do.Command] = []
        if admitted.enrolled is not None:
            commands.append(do.SaveMachine(admitted.enrolled))
        if admitted.replaced is not None:
            self.succession.disconnected(member.key)
            commands.append(do.CloseConnection(admitted.replaced))
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
            *self._arm_silence(),
        ]

    def _daemon_message(self, event: events.DaemonMessageReceived, now: float) -> list[do.Command]:
        member = self.membership.on_connection(event.connection)
        if member is None:
            return []  # the connection was replaced
        silence = self.membership.received(member, event, now)
        commands = [] if silence is None else self.registry.daemon_resumed(member.key, silence, now)
        message = event.message
        match message:
            case messages.Heartbeat(monotonic_ns=monotonic_ns, parts=parts):
                wall_ns = round((now + self.wall_offset) * 1e9)
                ack = messages.HeartbeatAck(monotonic_ns=monotonic_ns, coordinator_ns=wall_ns)
                commands.append(do.SendToDaemon(member.key, ack))
                commands += self.registry.heartbeat(member, parts, now)
            case messages.PartChanged() | messages.PartLost() | messages.PartDescribed():
                commands += self.registry.part_message(member.key, message, now)
            case messages.SignRequest(request=request):
                commands.append(do.SignCertificate(member.key, request, member.digest))
            case messages.CopyKept():
                self.succession.answered(member.key, message, now)
            case messages.DaemonAnswered() | messages.LogChunk() | TopicChunk():
                pass  # replies to queries, which `queries` collects
            case BuildEvents() | BuildEnded():
                pass  # likewise
            case messages.DaemonLeaving(hand_over=hand_over):
                manner = "hands over to its successor" if hand_over else "ends"
                commands.append(do.Log("info", f'daemon "{member.key}" {manner}'))
            case messages.Register() | messages.IdentityProof():
                text = f'ignored a second registration of daemon "{member.key}"'
                commands.append(do.Log("warning", text))
        return commands

    def _disconnected(self, connection: int, now: float) -> list[do.Command]:
        member = self.membership.disconnect(connection)
        return [] if member is None else self._daemon_lost(member, now)

    def _disconnect_silent(self, now: float) -> list[do.Command]:
        """Disconnect the members that have been silent for too long."""
        silent = self.membership.silent(now)
        lost = [(number, self.membership.disconnect(number)) for number in silent]
        return [
            command
            for number, member in lost
            if member is not None
            for command in self._daemon_lost(member, now, open_connection=number)
        ]

    def _daemon_lost(
        self, member: Member, now: float, open_connection: int | None = None
    ) -> list[do.Command]:
        """Handle the loss of a daemon.

        ``open_connection``: connection to close, because the daemon was silent for too long.
        """
        settings = self.settings
        commands: list[do.Command] = []
        manner = "disconnected"
        silence = now - member.last_message
        late = silence > LATE_HEARTBEAT * settings.heartbeat_interval
        silent = silence if open_connection is not None or late else None
        self.succession.disconnected(member.key)
        if open_connection is not None:
            commands.append(do.CloseConnection(open_connection))
            manner = f"disconnected: silent for {settings.daemon_silence_limit:g} s"
        listed = settings.ended_daemon_shown if member.left else settings.lost_daemon_shown
        commands += [
            do.Log("warning", f'daemon "{member.key}" {manner}'),
            do.ArmTimer(events.TimerKey("forget", member.key), now + listed),
            *self.registry.daemon_lost(member.key, now, silent),
        ]
        if member.register.machine_id is None and not self.registry.unfinished_on(member.key):
            self.membership.forget(member.key)
        return commands

    def _remove_machines(
        self, request: control.RemoveMachines, now: float
    ) -> tuple[control.MachinesRemoved, list[do.Command]]:
        """Forget the keys of machines; revoked machines are removed from the cluster."""
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
        return control.MachinesRemoved(machines=tuple(removed)), commands

    def _set_standbys(self, request: control.SetStandbys) -> list[do.Command]:
        if not self.succession.set_standbys(request):
            return []
        coordinators = self.succession.coordinators
        members = self.membership.connected()
        return [
            do.SaveSuccession(),
            *(do.SendToDaemon(member.key, coordinators) for member in members),
        ]

    def _exclude(self, machine: str, now: float) -> list[do.Command]:
        """Disconnect a removed machine after ending links to it; stop its dataflows."""
        reason = "it was removed from the cluster"
        commands: list[do.Command] = [do.Log("warning", f'machine "{machine}": {reason}')]
        member = self.membership.get(machine)
        connection = None if member is None else member.connection
        if connection is not None:
            refusal = messages.RegistrationRefused(message=f'machine "{machine}": {reason}')
            commands.append(do.CloseConnection(connection, refusal))
        commands += self.registry.machine_removed(machine, now)
        if connection is not None:
            commands += self._disconnected(connection, now)
        self.membership.forget(machine)
        return commands

    # ------------------------------------------------------------------- requests

    def _requested(self, requested: events.ClientRequested, now: float) -> list[do.Command]:
        """Dispatch a request; record a refused placement for `dora why`."""
        request = requested.request
        try:
            return self._dispatch(requested, now)
        except RequestRefused as problem:
            failure = do.FailClient(requested.client, problem)
            if problem.code != "placement" or not isinstance(
                request, control.StartDataflow | control.PlanDataflow
            ):
                return [failure]
            if isinstance(request, control.PlanDataflow) and not request.spec.code:
                return [failure]
            history, name = self.registry.history, request.spec.name
            return [*history.start_refused(name, "placement", str(problem), now), failure]

    def _dispatch(self, requested: events.ClientRequested, now: float) -> list[do.Command]:
        registry, request, lifecycle = self.registry, requested.request, self._lifecycle
        answer: do.Begun | control.ControlAnswer
        changes: list[do.Command] = []
        match request:
            case (
                control.StartDataflow() | control.RestartDataflow() | control.ReplaceDataflow()
            ) if self._ending:
                raise RequestRefused("failed", "the coordinator is ending; start refused")
            case control.PlanDataflow(spec=spec):
                answer = lifecycle.plan(spec)
            case control.StartDataflow():
                answer, changes = lifecycle.start(request, requested.fresh_id, now)
            case control.StopDataflow():
                answer, changes = lifecycle.stop(request, now)
            case control.RestartDataflow() | control.ReplaceDataflow():
                answer, changes = lifecycle.restart(request, requested.fresh_id, now)
            case control.Destroy(force=force):
                live = registry.live()
                if live and not force:
                    names = ", ".join(dataflow.label for dataflow in live)
                    reason = (
                        f"dataflows are still running: {names}; stop them first, or use --force"
                    )
                    raise RequestRefused("conflict", reason)
                self._ending = True
                answer, changes = lifecycle.stop_all(live, StopRequested(), now)
            case control.ForgetEnded():
                gone, changes = registry.forget_ended()
                rows = [dataflow_summary(one, registry, self.membership, now) for one in gone]
                answer = control.DataflowList(dataflows=tuple(rows))
            case control.RotateToken(grace=grace):
                ready = [member.key for member in self.membership.connected()]
                return [do.RotateToken(requested.client, grace, tuple(ready))]
            case fleets.ApplyFleet() | fleets.RollBackFleet() | fleets.PauseFleet():
                answer, changes = self.fleet.request(request, now)
            case control.RemoveMachines():
                answer, changes = self._remove_machines(request, now)
            case control.SetStandbys():
                answer, changes = control.StandbysSet(), self._set_standbys(request)
        return [*changes, do.AnswerClient(requested.client, answer)]

    # --------------------------------------------------------------------- timers

    def _timer_fired(self, key: events.TimerKey, now: float) -> list[do.Command]:
        match key.purpose:
            case "silence":
                self._silence_armed = False
                return [*self._disconnect_silent(now), *self._arm_silence()]
            case "forget":
                return self._forget_daemon(key, now)
            case "fleet":
                return self.fleet.tick(now)
            case "reconcile":
                return self.registry.sweep(now)
            case "start" | "link" | "recovery" | "stop":
                dataflow = self.registry.get(key.subject)
                if dataflow is None:
                    return []
                return self.registry.apply(dataflow, TimerExpired(key.purpose), now)

    def _forget_daemon(self, key: events.TimerKey, now: float) -> list[do.Command]:
        """Stop listing a daemon, unless it is connected or a dataflow waits for it."""
        if not self.membership.is_connected(key.subject) and self.registry.unfinished_on(
            key.subject
        ):
            return [do.ArmTimer(key, now + self.settings.ended_daemon_shown)]
        self.membership.forget(key.subject)
        return []

    def _arm_silence(self) -> list[do.Command]:
        deadline = self.membership.next_deadline()
        if self._silence_armed or deadline is None:
            return []
        self._silence_armed = True
        return [do.ArmTimer(_SILENCE, deadline)]
