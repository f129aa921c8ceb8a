"""Simulated cluster with several coordinators: promotions, cut networks, and a compromised robot.

Claims, starts and copies are signed and verified by the product's own code.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from support.claims import forged, signed
from support.simulation.fleets import SimulatedFleet
from support.simulation.machines import SimulatedDaemon

from dora_config.access import Endpoint
from dora_config.protocol.calls import LinkPart
from dora_config.protocol.claims import Claim
from dora_config.protocol.control import Standby
from dora_config.protocol.daemon import (
    CoordinatorMessage,
    Coordinators,
    DaemonMessage,
    PartDescribed,
    PartReport,
    PreparePart,
    Register,
    Registered,
)
from dora_config.protocol.dataflow import StartIdentity
from dora_coordinator.coordinator import CoordinatorState
from dora_coordinator.io.authority import Authority
from dora_coordinator.io.provenance import Provenance
from dora_coordinator.io.service import Service
from dora_coordinator.io.store import MemoryStore
from dora_coordinator.io.succession import SuccessionFile
from dora_coordinator.settings import Settings
from dora_coordinator.state.succession import Succession, SuccessionRecord
from dora_daemon.agent.coordinator_access import CoordinatorAccess
from dora_daemon.signatures import is_valid
from dora_testing.cluster.fleet import COORDINATOR
from dora_testing.cluster.link import SimulatedLink, Wall

STATION = "station"
"""Machine of the first coordinator; it has no daemon."""
_FUTURE = 1e9
"""Seconds by which forged starts are later than real ones."""
_TRIES = 4
"""Addresses that a daemon tries at once."""


class Place(SimulatedFleet):
    """The coordinator that is, was or can be on one machine, with the daemons that obey it."""

    def __init__(self, cluster: SimulatedCluster, machine: str, number: int) -> None:
        self.cluster = cluster
        self.machine = machine
        self.address = f"10.0.0.{number}:6013"
        self.runs = False
        """Whether the process runs; one that was replaced does, and leads nothing."""
        first = signed(cluster.authority, 1, address=self.address)
        self.record = SuccessionRecord(claim=first)
        self.provenance = Provenance(cluster.authority)
        super().__init__(cluster.settings, codec=False)
        self.walls = cluster.walls
        self._last_port = self._last_decision = number * 1_000_000  # of which UUIDs are made

    @property
    def succession(self) -> Succession:
        return self._service.succession

    def start_coordinator(self) -> None:
        """Start the process; it leads if it does not know that it was replaced."""
        place = (SuccessionFile(None), self.record)
        store, authority = MemoryStore(), self.cluster.authority
        self._service = Service(self.settings, COORDINATOR, store, authority, succession=place)
        self.runs = True
        if self.succession.refusal is None:
            super().start_coordinator()

    def kill_coordinator(self) -> None:
        self.record = self.succession.record
        self.runs = False
        super().kill_coordinator()

    def consider(self, claim: Claim, source: str) -> None:
        """Let the coordinator see the claim of another one; it may stand aside."""
        self._service.standbys.consider(claim, source)
        if self.succession.refusal is not None and self.coordinator is not None:
            self.kill_coordinator()
            self.runs = True

    def take_over(self, claim: Claim) -> None:
        """Become the coordinator with this claim and the present store."""
        if self.runs:
            self.kill_coordinator()
        others = [one for one in self.cluster.places if one is not self]
        standbys = tuple(Standby(machine=one.machine, address=one.address) for one in others)
        self.record = SuccessionRecord(claim=claim, standbys=standbys)
        self.start_coordinator()

    def _make_coordinator(self) -> CoordinatorState:
        return CoordinatorState(self.settings, COORDINATOR, succession=self.succession)

    def _links(self, dataflow_id: str) -> list[SimulatedLink]:
        living = (r for one in self.cluster.daemons.values() for r in one.living(dataflow_id))
        return [runner.link for runner in living if runner.link is not None]

    def _receive(self, daemon: SimulatedDaemon, message: DaemonMessage | str) -> None:
        assert not isinstance(message, str)
        verified = self._verified(daemon, self.cluster.forger.changed(daemon, message))
        if verified is not None:
            super()._receive(daemon, verified)

    def _verified(self, daemon: SimulatedDaemon, message: DaemonMessage) -> DaemonMessage | None:
        """Return what the coordinator believes of a message; None: it has refused the daemon."""
        if not isinstance(message, Register):
            return self.provenance.message(daemon.key, message)
        claim = self.cluster.claim_of(daemon)
        if claim.epoch:
            self.consider(claim, f'daemon "{daemon.name}"')
        if (successor := self.succession.record.successor) is not None:
            self._hang_up(daemon)
            self.cluster.access[daemon.name].learn(successor, self.cluster.fingerprint)
            return None
        return self.provenance.registration(message)

    def _send(self, daemon: SimulatedDaemon, message: CoordinatorMessage) -> None:
        if isinstance(message, PreparePart | LinkPart) and self.coordinator is not None:
            known = self.coordinator.registry.get(message.dataflow_id)
            message = self.provenance.signed(message, None if known is None else known.spec.name)
        super()._send(daemon, message)

    def _deliver(self, daemon: SimulatedDaemon, message: CoordinatorMessage | str) -> None:
        claimed = message.coordinators if isinstance(message, Registered) else message
        access = self.cluster.access[daemon.name]
        if isinstance(claimed, Coordinators) and access.follow(claimed, self.cluster.fingerprint):
            self.disconnect(daemon)
        else:
            super()._deliver(daemon, message)


class Forger:
    """A compromised robot: it reports about others what it likes."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self.machine: str | None = None
        self.claim: Claim | None = None
        """What it shows in place of the claim that it obeys."""
        self.calls_them: str | None = None
        """Name under which it reports its dataflows."""

    def changed(self, daemon: SimulatedDaemon, message: DaemonMessage) -> DaemonMessage:
        """Return a message of a daemon as a compromised one sends it."""
        if daemon.name != self.machine:
            return message
        match message:
            case Register():
                ends = (*message.stored_ends, *self._ends(daemon))
                others = tuple(self._of_others(daemon))
                parts = (*message.parts, *others)
                return message.model_copy(update={"stored_ends": ends, "parts": parts})
            case PartDescribed(whole=whole):
                placement = dict.fromkeys((*whole.placement, "robbed"), daemon.key)
                update = {"placement": placement, "changes": whole.changes + 5}
                forged_whole = whole.model_copy(update=update)
                own = message.spec.model_copy(update={"name": self.calls_them or message.spec.name})
                return message.model_copy(update={"whole": forged_whole, "spec": own})
            case _:
                return message

    def _ends(self, daemon: SimulatedDaemon) -> Iterator[PartReport]:
        """Yield ends of starts that are later than all others."""
        for number, name in enumerate(self._cluster.names):
            dataflow_id = f"00000000-0000-4000-8000-00000000000{number}"
            begun = StartIdentity(
                time=self._cluster.now + _FUTURE, epoch=1 << 62, number=1, signature="Zm9yZ2Vk"
            )
            yield PartReport(
                dataflow_id=dataflow_id, attempt=1, phase="ended", name=name, begun=begun
            )

    def _of_others(self, daemon: SimulatedDaemon) -> Iterator[PartReport]:
        """Yield ends of dataflows without a node on the machine: it answers for its own nodes."""
        own = set(daemon.disk)
        for place in self._cluster.leaders():
            assert place.coordinator is not None
            own |= {one.id for one in place.coordinator.registry if daemon.key in one.parts}
        for other in self._cluster.daemons.values():
            for dataflow_id, record in other.disk.items():
                if dataflow_id not in own and daemon.key not in record.whole.placement.values():
                    yield PartReport(dataflow_id=dataflow_id, attempt=99, phase="ended")


class SimulatedCluster:
    """Machines, and the coordinators on some of them."""

    def __init__(
        self,
        settings: Settings,
        authority: Authority,
        folder: Path,
        machines: tuple[str, ...],
        names: tuple[str, ...],
    ) -> None:
        """``folder``: of what daemons keep; ``names``: of dataflows, which are forged."""
        self.settings, self.authority, self.names = settings, authority, names
        self.fingerprint = authority.fingerprint
        self.walls: set[Wall] = set()
        self.cut: frozenset[str] = frozenset()
        """Machines that do not reach the others."""
        self.daemons: dict[str, SimulatedDaemon] = {}
        self.access: dict[str, CoordinatorAccess] = {}
        self.forger = Forger(self)
        self._folder = folder
        self._is_valid = lru_cache(None)(is_valid)
        self._disks = 0
        self.places = [
            Place(self, name, number + 1) for number, name in enumerate((STATION, *machines))
        ]
        for one in self.places:
            one.kill_coordinator()
        self.present = self.places[0]
        """The coordinator that the operator uses."""
        self.present.take_over(self.present.record.claim)
        for name in machines:
            self.daemons[name] = daemon = SimulatedDaemon(name, name, codec=False)
            self.forget_coordinators(daemon)
            self.present.daemons[name] = daemon
            self.present.start_daemon(daemon)
        self.settle()

    @property
    def now(self) -> float:
        return self.places[0].now

    def place_of(self, daemon: SimulatedDaemon) -> Place:
        return next(one for one in self.places if daemon.name in one.daemons)

    def claim_of(self, daemon: SimulatedDaemon) -> Claim:
        """Return the claim that a daemon shows."""
        if daemon.name == self.forger.machine and self.forger.claim is not None:
            return self.forger.claim
        return self.access[daemon.name].known(self.fingerprint).claim

    def forget_coordinators(self, daemon: SimulatedDaemon) -> None:
        """Give a daemon a new disk, with the address that it was installed with."""
        self._disks += 1
        folder = self._folder / str(self._disks)
        folder.mkdir()
        host, port = self.places[0].address.split(":")
        given = Endpoint(host, int(port))
        self.access[daemon.name] = CoordinatorAccess(folder, lambda: given, self._is_valid)

    # ------------------------------------------------------------------- network

    def reaches(self, one: str, other: str) -> bool:
        return (one in self.cut) == (other in self.cut)

    def divide(self, cut: frozenset[str]) -> None:
        """Cut the network between these machines and the others; none: it is whole."""
        self.cut = cut
        self.walls.clear()
        for one in self.daemons:
            self.walls |= {
                Wall((one, other)) for other in self.daemons if (one in cut) > (other in cut)
            }
        for daemon in self.daemons.values():
            place = self.place_of(daemon)
            if not self.reaches(place.machine, daemon.name):
                place.disconnect(daemon)

    def connect(self, daemon: SimulatedDaemon) -> None:
        """Let a daemon try its addresses until a coordinator answers."""
        access = self.access[daemon.name]
        for _ in range(_TRIES):
            if daemon.agent is None or daemon.connection is not None:
                return
            address = str(access.endpoint())
            place = next((one for one in self.places if one.address == address), None)
            if place is None:  # a forged one
                access.failed()
                continue
            if place.runs and self.reaches(place.machine, daemon.name):
                self._try(daemon, place)
            if daemon.connection is None:
                access.failed()

    def _try(self, daemon: SimulatedDaemon, place: Place) -> None:
        del self.place_of(daemon).daemons[daemon.name]
        place.daemons[daemon.name] = daemon
        if place.coordinator is not None:
            place.connect(daemon)
        elif (successor := place.succession.record.successor) is not None:
            self.access[daemon.name].learn(successor, self.fingerprint)

    def watch(self) -> None:
        """Coordinators ask their standbys, and daemons without a connection reconnect."""
        for one in self.places:
            for standby in one.succession.record.standbys if one.coordinator is not None else ():
                other = next(each for each in self.places if each.address == standby.address)
                if other.runs and self.reaches(one.machine, other.machine):
                    one.consider(other.succession.leading, f"the coordinator at {other.address}")
        for daemon in self.daemons.values():
            self.connect(daemon)

    # ------------------------------------------------------------------- faults

    def start_daemon(self, daemon: SimulatedDaemon) -> None:
        daemon.start(self.now)
        self.connect(daemon)

    def promote(self, place: Place) -> None:
        """Make the coordinator on a machine, with its store, that of all that it reaches."""
        reached = [one for one in self.daemons.values() if self.reaches(place.machine, one.name)]
        seen = [self.access[one.name].known(self.fingerprint).claim.epoch for one in reached]
        living = [one for one in self.places if one.runs]
        seen += [
            one.succession.leading.epoch
            for one in living
            if self.reaches(place.machine, one.machine)
        ]
        epoch = max(1, place.record.leading.epoch, *seen) + 1
        place.take_over(signed(self.authority, epoch, place.machine, place.address))
        self.present = place

    def forge(self, choice: random.Random) -> None:
        """Let a robot forge from now on: a claim of the highest epoch, or an old one again."""
        self.forger.machine = choice.choice(list(self.daemons))
        old = signed(self.authority, 1, "", self.places[0].address)
        spoilt = old.model_copy(update={"epoch": 1 << 62})
        self.forger.claim = choice.choice((forged(self.fingerprint), spoilt, old))

    # ------------------------------------------------------------------- time

    def leaders(self) -> list[Place]:
        return [one for one in self.places if one.coordinator is not None]

    def settle(self) -> None:
        for one in self.places:
            one.settle()

    def pass_time(self, seconds: float, *, step: float = 1.0, watching: bool = False) -> None:
        end = self.now + seconds
        while self.now < end:
            length = min(step, end - self.now)
            if watching:
                self.watch()
            for one in self.places:
                if one.coordinator is None and not one.daemons:
                    one.now += length
                else:
                    one.pass_time(length, step=length)

    def pass_time_quickly(self, seconds: float) -> None:
        for one in self.places:
            one.pass_time_quickly(seconds)
