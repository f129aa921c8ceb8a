"""Which copy of the coordinator's state is used, and what the cluster is afterwards; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dora_config.access import Moved, address_text
from dora_config.cluster.models import Cluster, Coordinator
from dora_config.frozen import Frozen


class CopyFacts(Frozen):
    """The copy on one machine."""

    authority: str
    epoch: int
    machine: str
    number: int
    age: float


class StandbyFacts(Frozen):
    """Coordinator and copy that the daemon of one machine has stored."""

    authority: str
    epoch: int
    machine: str
    copy_: CopyFacts | None

    @classmethod
    def of(cls, answer: Mapping[str, object]) -> StandbyFacts:
        return cls.model_validate({**answer, "copy_": answer["copy"]})


def newest_copy(found: Mapping[str, StandbyFacts], authority: str) -> str | None:
    """Return the machine with the newest copy of this cluster; None without any.

    A higher rank counts more than a higher number: the coordinator of a lower one was replaced.
    """
    copies = {
        name: one.copy_
        for name, one in found.items()
        if one.copy_ is not None and one.copy_.authority == authority
    }
    if not copies:
        return None
    return max(copies, key=lambda name: (*_rank(copies[name]), copies[name].number))


def leads(epoch: int, machine: str, found: Iterable[StandbyFacts], authority: str) -> bool:
    """Return whether no machine has seen a coordinator of a higher rank."""
    seen = [_rank(one) for one in found if one.authority == authority]
    return (epoch, machine) >= max(seen, default=(0, ""))


def _rank(one: StandbyFacts | CopyFacts) -> tuple[int, str]:
    """Return the order of coordinators, as `Coordinators.rank`."""
    return one.epoch, one.machine


def next_epoch(found: Iterable[StandbyFacts], authority: str) -> int:
    """Return an epoch above all that any machine has seen or has a copy of."""
    seen = [1]
    for one in found:
        if one.authority == authority:
            seen.append(one.epoch)
        if one.copy_ is not None and one.copy_.authority == authority:
            seen.append(one.copy_.epoch)
    return max(seen) + 1


def promoted(cluster: Cluster, moved: Moved) -> Cluster:
    """Return the cluster with its coordinator on another machine."""
    old = cluster.coordinator
    former = [*old.former, address_text(old.addr, old.port), *moved.former]
    new = Coordinator(
        addr=moved.host,
        port=moved.port,
        standby=tuple(one for one in old.standby if one != moved.machine),
        former=tuple(dict.fromkeys(former)),
    )
    machine = next((one for one in cluster.machines if one.id == moved.machine), None)
    if machine is not None:
        there = {name: getattr(machine, name) for name in ("host", "user", "identity_file", "dora")}
        new = new.model_copy(update={**there, "ssh_port": machine.port})
    return cluster.model_copy(update={"coordinator": new})
