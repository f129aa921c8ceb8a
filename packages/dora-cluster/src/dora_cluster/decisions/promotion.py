"""Choice of the copy of the coordinator's state that is used, and the cluster afterwards; pure.

Reports of machines are used only if the authority of the cluster has signed them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from dora_config.access import Moved, address_text, split_address
from dora_config.cluster.models import MAX_STANDBYS, Cluster, Coordinator
from dora_config.frozen import Frozen
from dora_config.protocol.claims import Claim
from dora_config.protocol.control import Standby
from dora_config.protocol.daemon import CoordinatorCopy
from dora_daemon.signatures import is_signed, is_valid


class CopyFacts(Frozen):
    """The copy on one machine, as it reports; verified once it is read."""

    authority: str
    epoch: int
    machine: str
    number: int
    age: float


class StoreFacts(Frozen):
    """The store of a coordinator on its own machine."""

    claim: Claim
    number: int
    """Number of changes in the copy."""

    @classmethod
    def of(cls, answer: Mapping[str, Any], authority: str, machine: str) -> StoreFacts | None:
        """Return the store of the coordinator that was promoted on a machine; empty: the first
        one. No other machine has one.
        """
        try:
            found = cls.model_validate(answer["store"])
        except ValidationError:
            return None
        own = found.claim.machine == machine and is_valid(found.claim, authority)
        return found if own else None


class StandbyFacts(Frozen):
    """The coordinator that the daemon of one machine obeys, and the copy that it keeps."""

    claim: Claim | None = None
    copy_: CopyFacts | None = None
    store: StoreFacts | None = None
    """Store of a coordinator which was promoted there."""
    forged: Claim | None = None
    """A claim for this cluster without its signature."""

    @classmethod
    def of(cls, answer: Mapping[str, Any], authority: str, machine: str) -> StandbyFacts:
        """Return the facts of a machine about the cluster with this authority."""
        claim = forged = copy = None
        store = StoreFacts.of(answer, authority, machine)
        try:
            found = Claim.model_validate(answer["claim"])
            if found.cluster == authority and found.epoch:
                signed = is_valid(found, authority)
                claim, forged = (found, None) if signed else (None, found)
        except ValidationError:
            pass
        try:
            seen = CopyFacts.model_validate(answer["copy"])
            copy = seen if seen.authority == authority else None
        except ValidationError:
            pass
        return cls(claim=claim, copy_=copy, store=store, forged=forged)


def by_age(found: Mapping[str, StandbyFacts]) -> list[str]:
    """Return the machines with a copy, that with the newest one first.

    A higher rank counts more than a higher number: the coordinator of a lower one was replaced.
    """
    copies = {name: one.copy_ for name, one in found.items() if one.copy_ is not None}

    def age(name: str) -> tuple[int, str, int]:
        copy = copies[name]
        return copy.epoch, copy.machine, copy.number

    return sorted(copies, key=age, reverse=True)


def parse_copy(content: object, authority: str) -> CoordinatorCopy | None:
    """Return a copy that a coordinator of this cluster made; None for another content."""
    try:
        copy = CoordinatorCopy.model_validate(content)
    except ValidationError:
        return None
    made = copy.authority == authority and is_signed(copy.text, copy.proof, authority)
    return copy if made else None


def newer_store(stores: Mapping[str, StoreFacts], copy: CoordinatorCopy | None) -> str | None:
    """Return the machine with the newest store, if that is newer than a copy."""
    if not stores:
        return None

    def age(name: str) -> tuple[int, str, int]:
        return (*stores[name].claim.rank, stores[name].number)

    newest = max(stores, key=age)
    of_copy = (0, "", 0) if copy is None else (copy.epoch, copy.machine, copy.number)
    return newest if age(newest) > of_copy else None


def leads(claim: Claim, found: Iterable[StandbyFacts]) -> bool:
    """Return whether no machine has seen a coordinator of a higher rank."""
    seen = [one.claim.rank for one in found if one.claim is not None]
    return claim.rank >= max(seen, default=(0, ""))


def next_epoch(found: Iterable[StandbyFacts], copy: CoordinatorCopy) -> int:
    """Return an epoch above that of the copy and above all that any machine has seen."""
    seen = [one.claim.epoch for one in found if one.claim is not None]
    return max(1, copy.epoch, *seen) + 1


def promoted(cluster: Cluster, moved: Moved) -> Cluster:
    """Return the cluster with its coordinator on another machine; its standbys stay the same."""
    old = cluster.coordinator
    former = [*old.former, address_text(old.addr, old.port), *moved.former]
    own = address_text(moved.host, moved.port)
    new = Coordinator(
        addr=moved.host,
        port=moved.port,
        standby=old.standby,
        former=tuple(one for one in dict.fromkeys(former) if one != own),
    )
    machine = next((one for one in cluster.machines if one.id == moved.machine), None)
    if machine is not None:
        there = {name: getattr(machine, name) for name in ("host", "user", "identity_file", "dora")}
        new = new.model_copy(update={**there, "ssh_port": machine.port})
    return cluster.model_copy(update={"coordinator": new})


def returned(file: Cluster, cluster: Cluster) -> Cluster:
    """Return the cluster with its coordinator where the file names it."""
    place, now = file.coordinator, cluster.coordinator
    own = address_text(place.addr, place.port)
    former = dict.fromkeys((*now.former, address_text(now.addr, now.port)))
    found = tuple(one for one in former if one != own)
    return file.model_copy(update={"coordinator": place.model_copy(update={"former": found})})


def standbys_of(cluster: Cluster) -> tuple[Standby, ...]:
    """Return the machines that are to keep a copy: the standbys of the file, and the machines on
    which the coordinator was before, without that on which it is.
    """
    place = cluster.coordinator
    before = {split_address(one)[0] for one in place.former}
    names = [*place.standby, *(one.id for one in cluster.machines if one.address in before)]
    found = {name: cluster.machine(name).address for name in names}
    return tuple(
        Standby(machine=name, address=address_text(address, place.port))
        for name, address in found.items()
        if address is not None and address != place.addr
    )[:MAX_STANDBYS]
