"""Which copy of the coordinator's state is used, and what the cluster is afterwards; pure.

What machines report counts if the authority of the cluster has signed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from dora_config.access import Moved, address_text
from dora_config.cluster.models import Cluster, Coordinator
from dora_config.frozen import Frozen
from dora_config.protocol.claims import Claim
from dora_config.protocol.daemon import CoordinatorCopy
from dora_daemon.signatures import is_signed, is_valid


class CopyFacts(Frozen):
    """The copy on one machine, as it reports; verified once it is read."""

    authority: str
    epoch: int
    machine: str
    number: int
    age: float


class StandbyFacts(Frozen):
    """The coordinator that the daemon of one machine obeys, and the copy that it keeps."""

    claim: Claim | None = None
    copy_: CopyFacts | None = None
    forged: Claim | None = None
    """A claim for this cluster without its signature."""

    @classmethod
    def of(cls, answer: Mapping[str, Any], authority: str) -> StandbyFacts:
        """Return what is of the cluster with this authority."""
        claim = forged = copy = None
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
        return cls(claim=claim, copy_=copy, forged=forged)


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


def leads(claim: Claim, found: Iterable[StandbyFacts]) -> bool:
    """Return whether no machine has seen a coordinator of a higher rank."""
    seen = [one.claim.rank for one in found if one.claim is not None]
    return claim.rank >= max(seen, default=(0, ""))


def next_epoch(found: Iterable[StandbyFacts], copy: CoordinatorCopy) -> int:
    """Return an epoch above all that any machine has seen, and that of the copy."""
    seen = [one.claim.epoch for one in found if one.claim is not None]
    return max(1, copy.epoch, *seen) + 1


def promoted(cluster: Cluster, moved: Moved) -> Cluster:
    """Return the cluster with its coordinator on another machine."""
    old = cluster.coordinator
    former = [*old.former, address_text(old.addr, old.port), *moved.former]
    new = Coordinator(
        addr=moved.host,
        port=moved.port,
        standby=old.standby,
        former=tuple(dict.fromkeys(former)),
    )
    machine = next((one for one in cluster.machines if one.id == moved.machine), None)
    if machine is not None:
        there = {name: getattr(machine, name) for name in ("host", "user", "identity_file", "dora")}
        new = new.model_copy(update={**there, "ssh_port": machine.port})
    return cluster.model_copy(update={"coordinator": new})
