"""Which daemons are known, connected or lost; deadlines as data; pure.

A daemon's *key* is its machine id, or ``default-`` and the start of its instance id when it has
none. The key outlives connections and restarts: parts of dataflows belong to keys.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from dora_config.protocol.daemon import Metrics, Register


def daemon_key(register: Register) -> str:
    return register.machine_id or f"default-{register.instance[:8]}"


_PAST_KEPT = 8
"""Replaced incarnations that are remembered of each daemon."""


@dataclass(slots=True)
class Member:
    """One daemon, connected or not. Times are readings of the coordinator's clock."""

    key: str
    register: Register
    address: str
    last_heard: float
    connection: int | None
    """``None``: not connected."""
    past: tuple[str, ...] = ()
    """Incarnations of that instance which a later one has replaced, newest last."""
    restarts: int = 0
    """Starts of the daemon process after the first that this coordinator has seen."""
    left: bool = False
    """It ended in good order."""
    metrics: dict[str, Metrics] = field(default_factory=dict)
    """What the last heartbeat said, by dataflow id."""
    metrics_at: float = 0.0
    """When that came."""
    clock_offset: float | None = None
    """Seconds by which the machine's clock is ahead of ours, at the last heartbeat."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Outcome of a registration: admitted (perhaps in place of ``replaced``), or refused."""

    key: str
    replaced: int | None = None
    refusal: str | None = None


class Membership:
    """Every operation costs the same however many daemons there are, except listing them."""

    def __init__(
        self, *, answering_within: float, silence_limit: float, fresh_within: float = 0.0
    ) -> None:
        """``answering_within``: seconds since its last word in which a daemon counts as present;
        ``fresh_within``: in which its machine cannot have been rebooted.
        """
        self._answering_within = answering_within
        self._fresh_within = fresh_within
        self._silence_limit = silence_limit
        self._members: dict[str, Member] = {}
        self._by_connection: dict[int, Member] = {}
        self._quietest_first: OrderedDict[str, None] = OrderedDict()

    def register(self, connection: int, register: Register, address: str, now: float) -> Admission:
        """Admit a daemon, unless another instance answers under the same key."""
        key = daemon_key(register)
        known = self._members.get(key)
        replaced: int | None = None
        restarts = 0
        past: tuple[str, ...] = ()
        if known is not None:
            rival = self._rival(known, register, now)
            if rival is not None:
                return Admission(
                    key,
                    refusal=f'machine id "{key}" is taken: the daemon at {known.address} answers '
                    f"under it, so the one at {address} ({rival}",
                )
            replaced = known.connection
            if known.register.instance == register.instance:
                past, restarts = known.past, known.restarts
                if known.register.incarnation != register.incarnation:
                    restarts += 1
                    past = (*past, known.register.incarnation)[-_PAST_KEPT:]
        if replaced is not None:
            del self._by_connection[replaced]
        member = Member(key, register, address, now, connection, past, restarts)
        self._members[key] = self._by_connection[connection] = member
        self._quietest_first[key] = None
        self._quietest_first.move_to_end(key)
        return Admission(key, replaced)

    def _rival(self, known: Member, register: Register, now: float) -> str | None:
        """What a daemon is, and what to do, that claims the place of one that answers.

        A copied disk has the same instance. Then two processes live: the one that was replaced
        comes again, or the machine was booted another time although it has just been heard.
        """
        silence = now - known.last_heard
        if known.connection is None or silence >= self._answering_within:
            return None
        if known.register.instance != register.instance:
            return (
                "another installation) is refused; give one of them another --machine-id (a copied "
                "disk also copies the id)"
            )
        boots = {known.register.boot_id, register.boot_id}
        rebooted = "" not in boots and len(boots) == 2
        if register.incarnation in known.past or (rebooted and silence < self._fresh_within):
            return (
                "a copy of its installation) is refused; on one of them delete the daemon's state "
                "(~/.local/state/dora/daemon) and give it another --machine-id"
            )
        return None

    def heard(self, connection: int, now: float) -> Member | None:
        """Note a word on ``connection``; ``None`` when it belongs to no member (any more)."""
        member = self._by_connection.get(connection)
        if member is not None:
            member.last_heard = now
            self._quietest_first.move_to_end(member.key)
        return member

    def disconnected(self, connection: int) -> Member | None:
        """The member that lost its connection, ``None`` when it had been replaced before."""
        member = self._by_connection.pop(connection, None)
        if member is not None:
            member.connection = None
            member.metrics.clear()
            del self._quietest_first[member.key]
        return member

    def silent(self, now: float) -> list[Member]:
        """Connected members that have been silent for too long, quietest first."""
        found = []
        for key in self._quietest_first:
            member = self._members[key]
            if now < member.last_heard + self._silence_limit:
                break
            found.append(member)
        return found

    def next_deadline(self) -> float | None:
        """When the quietest member will have been silent for too long."""
        for key in self._quietest_first:
            return self._members[key].last_heard + self._silence_limit
        return None

    def get(self, key: str) -> Member | None:
        return self._members.get(key)

    def is_connected(self, key: str) -> bool:
        member = self._members.get(key)
        return member is not None and member.connection is not None

    def forget(self, key: str) -> None:
        """Drop a member that is not connected; a daemon without a machine id is not missed."""
        if not self.is_connected(key):
            self._members.pop(key, None)

    def all(self) -> list[Member]:
        """Connected and lost members in the order in which they first came."""
        return list(self._members.values())

    def connected(self) -> list[Member]:
        return [member for member in self._members.values() if member.connection is not None]
