"""State machine of the daemons: connected, silent, lost or replaced; pure.

A daemon's *key* is its machine id, or ``default-`` and the start of its instance id. The key
outlives connections and restarts: parts of dataflows belong to keys.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from dora_config.machine_identity import certificate_name
from dora_config.protocol.daemon import DaemonLeaving, Heartbeat, Metrics, PartReport, Register
from dora_coordinator.settings import Settings
from dora_coordinator.state.events import DaemonMessageReceived, DaemonRegistered
from dora_coordinator.state.identities import Identities, MachineRecord

_MAX_PAST = 8
"""Replaced incarnations remembered per daemon."""
LONG_SILENCE: Final = 2.5
"""Heartbeat intervals without a message after which a silence is reported."""
STALL: Final = 1.0
"""Seconds after a stall of the coordinator in which messages may be late because of it."""
RESUMED_EVERY: Final = 60.0
"""Seconds between two reported silences of one machine: a poor radio link has many."""
MAX_DELAY: Final = 0.1
"""Seconds by which the delay of a heartbeat may make the offset of a clock look smaller."""
LATE_HEARTBEAT: Final = 1.5
"""Heartbeat intervals without a message after which the next one is late."""


@dataclass(slots=True)
class Member:
    """One daemon, connected or not. Times are readings of the coordinator's clock."""

    key: str
    register: Register
    address: str
    last_message: float
    connection: int | None
    """None: not connected."""
    digest: str
    """Digest of its key."""
    past: tuple[str, ...] = ()
    """Incarnations of the same instance that were replaced by a later one, newest last."""
    restarts: int = 0
    """Restarts of the daemon process that this coordinator has seen."""
    resumed_at: float = float("-inf")
    """Time of the report of the last long silence."""
    rebooted: bool = False
    """Whether the machine has another boot id than at the registration before."""
    left: bool = False
    """Whether the daemon announced its end."""
    parts: dict[str, PartReport] = field(default_factory=dict)
    """Last report of each part, by dataflow id."""
    metrics: dict[str, Metrics] = field(default_factory=dict)
    """Metrics of the last heartbeat by dataflow id."""
    metrics_at: float = 0.0
    clock_offset: float | None = None
    """The machine's clock minus the coordinator's, in seconds."""

    @property
    def certificate_name(self) -> str:
        """Common name of its certificate."""
        return certificate_name(self.key, self.digest)


@dataclass(frozen=True, slots=True)
class MemberAdmitted:
    member: Member
    replaced: int | None
    """Earlier connection of the same daemon."""
    enrolled: MachineRecord | None = None
    """The record to store of a machine with a new key."""


def daemon_key(register: Register) -> str:
    return register.machine_id or f"default-{register.instance[:8]}"


def _steady(known: float | None, measured: float | None) -> float | None:
    """Return the clock offset after another measurement.

    Delays of heartbeats only make it smaller, so the largest one counts until a clock was set.
    """
    if known is None or measured is None:
        return measured
    return known if known - MAX_DELAY < measured < known else measured


def _other_boot(known: Register, register: Register) -> bool:
    boots = {known.boot_id, register.boot_id}
    return "" not in boots and len(boots) == 2


class Membership:
    """All known daemons. The cost of an event does not depend on their number."""

    def __init__(self, settings: Settings) -> None:
        self._answering_within = settings.daemon_silence_warning
        self._silence_limit = settings.daemon_silence_limit
        self._long_silence = LONG_SILENCE * settings.heartbeat_interval
        self._stalled_at = float("-inf")
        self._late = LATE_HEARTBEAT * settings.heartbeat_interval
        self._no_reboot_within = self._late
        """Seconds since the last message within which a machine cannot have been rebooted."""
        self.identities = Identities()
        self._members: dict[str, Member] = {}
        self._by_connection: dict[int, Member] = {}
        self._quietest_first: OrderedDict[str, None] = OrderedDict()

    def register(self, event: DaemonRegistered, now: float) -> MemberAdmitted | str:
        """Admit a daemon, or return why it is refused.

        A key in use by another connected instance and an unproven identity are refused.
        """
        connection, register = event.connection, event.register
        key = daemon_key(register)
        known = self._members.get(key)
        member = Member(key, register, event.address, now, connection, event.proof.digest)
        member.parts = {report.dataflow_id: report for report in register.parts}
        replaced: int | None = None
        if known is not None:
            conflict = self._conflict(known, register, now)
            if conflict is not None:
                return (
                    f'machine id "{key}" is taken by the connected daemon at {known.address}; '
                    f"the daemon at {event.address} {conflict}"
                )
        problem = self._identity_problem(known, event)
        if problem is not None:
            return f'the daemon at {event.address} is refused as "{key}": {problem}'
        if known is not None:
            replaced = known.connection
            member.rebooted = _other_boot(known.register, register)
            if known.register.instance == register.instance:
                member.past, member.restarts = known.past, known.restarts
                if known.register.incarnation != register.incarnation:
                    member.restarts += 1
                    member.past = (*known.past, known.register.incarnation)[-_MAX_PAST:]
        if replaced is not None:
            del self._by_connection[replaced]
        self._members[key] = self._by_connection[connection] = member
        self._quietest_first[key] = None
        self._quietest_first.move_to_end(key)
        named = register.machine_id is not None
        enrolled = self.identities.enrol(key, event.proof) if named else None
        return MemberAdmitted(member, replaced, enrolled)

    def _identity_problem(self, known: Member | None, event: DaemonRegistered) -> str | None:
        """Return why a daemon may not use its key; names that no user gave are not stored."""
        problem = self.identities.problem(daemon_key(event.register), event.proof)
        if problem is not None or event.register.machine_id is not None or known is None:
            return problem
        return "it is another machine" if known.digest != event.proof.digest else None

    def _conflict(self, known: Member, register: Register, now: float) -> str | None:
        """Return why a daemon is refused that uses the key of a connected one, and the remedy.

        A copied disk has the same instance id, so two processes take turns: one that was replaced
        registers again, or the boot id differs although the machine answered a moment ago.
        """
        silence = now - known.last_message
        if known.connection is None or silence >= self._answering_within:
            return None
        if known.register.instance != register.instance:
            return (
                "(another installation) is refused; give one of them another --machine-id "
                "(a copied disk also copies the id)"
            )
        rebooted = _other_boot(known.register, register) and silence < self._no_reboot_within
        if register.incarnation in known.past or rebooted:
            return (
                "(a copy of its installation) is refused; on one of them delete the daemon's state "
                "(~/.local/state/dora/daemon) and give it another --machine-id"
            )
        return None

    def received(self, member: Member, event: DaemonMessageReceived, now: float) -> float | None:
        """Note a message of a member; return its seconds of silence if they are to be reported."""
        silent = now - member.last_message
        stalled = silent > self._long_silence and self._was_stalled(now)
        member.last_message = now
        self._quietest_first.move_to_end(member.key)
        match event.message:
            case Heartbeat(metrics=metrics):
                member.metrics_at = now
                member.metrics = {sample.dataflow_id: sample for sample in metrics}
                member.clock_offset = _steady(member.clock_offset, event.clock_offset)
            case DaemonLeaving(hand_over=hand_over):
                member.left = not hand_over
            case _:
                pass  # other messages only set the time of the last message
        if silent <= self._long_silence or stalled or now - member.resumed_at < RESUMED_EVERY:
            return None
        member.resumed_at = now
        return silent

    def _was_stalled(self, now: float) -> bool:
        """Return whether all of several members were silent, because the coordinator was suspended.

        With a single member the cause cannot be determined; the member then counts as silent.
        """
        if now - self._stalled_at < STALL:
            return True
        latest = self._members[next(reversed(self._quietest_first))]
        if len(self._quietest_first) < 2 or now - latest.last_message <= self._long_silence:
            return False
        self._stalled_at = now
        return True

    def disconnect(self, connection: int) -> Member | None:
        """Mark a member as disconnected and return it; None: it was replaced before."""
        member = self._by_connection.pop(connection, None)
        if member is not None:
            member.connection = None
            member.metrics.clear()
            member.parts.clear()
            del self._quietest_first[member.key]
        return member

    def forget(self, key: str) -> None:
        """Remove a member, unless it is connected."""
        if not self.is_connected(key):
            self._members.pop(key, None)

    def silent(self, now: float) -> list[int]:
        """Return the connections of members that have been silent for too long, quietest first."""
        found = []
        for key in self._quietest_first:
            member = self._members[key]
            if now < member.last_message + self._silence_limit:
                break
            if member.connection is not None:
                found.append(member.connection)
        return found

    # ----------------------------------------------------------------------- views

    def next_deadline(self) -> float | None:
        """Return when the quietest member will have been silent for too long."""
        for key in self._quietest_first:
            return self._members[key].last_message + self._silence_limit
        return None

    def get(self, key: str) -> Member | None:
        return self._members.get(key)

    def on_connection(self, connection: int) -> Member | None:
        """Return the member with that connection; None when it was replaced or lost."""
        return self._by_connection.get(connection)

    def is_connected(self, key: str) -> bool:
        member = self._members.get(key)
        return member is not None and member.connection is not None

    def all(self) -> list[Member]:
        """Return connected and lost members in the order of their first registration."""
        return list(self._members.values())

    def connected(self) -> list[Member]:
        return [member for member in self._members.values() if member.connection is not None]
