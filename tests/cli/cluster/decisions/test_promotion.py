"""The copy that is used, the next epoch, and the cluster after a promotion."""

from __future__ import annotations

from dora_cli.cluster.decisions.existing_daemons import ExistingDaemon
from dora_cli.cluster.decisions.promotion import (
    StandbyFacts,
    leads,
    newest_copy,
    next_epoch,
    promoted,
)
from dora_config.access import Moved
from dora_config.cluster.loader import parse_cluster

OURS, OTHER = "ab" * 32, "cd" * 32
CLUSTER = parse_cluster("""\
coordinator: {addr: 10.0.0.1, standby: [base, rover]}
machines:
  - {id: base, host: 10.0.0.2, user: pi, port: 2222, dora: /opt/x/dora}
  - {id: rover, host: 10.0.0.3}
""").cluster
BASE = Moved("10.0.0.2", 6013, "base")


def facts(
    seen: int,
    copy: tuple[int, int] | None = None,
    *,
    authority: str = OURS,
    machine: str = "",
) -> StandbyFacts:
    highest = {"authority": authority, "machine": machine}
    kept = None
    if copy is not None:
        kept = {**highest, "epoch": copy[0], "number": copy[1], "age": 5.0}
    return StandbyFacts.of({**highest, "epoch": seen, "copy": kept})


def test_the_newest_copy_of_this_cluster_is_used() -> None:
    found = {
        "old": facts(1, (1, 900)),
        "newer": facts(2, (2, 12)),
        "newest": facts(2, (2, 13)),
        "other": facts(9, (9, 9), authority=OTHER),
        "none": facts(3),
    }
    assert newest_copy(found, OURS) == "newest"
    assert newest_copy({"none": facts(1)}, OURS) is None
    assert newest_copy({"other": found["other"]}, OURS) is None
    found["of_rover"] = facts(2, (2, 5), machine="rover")
    assert newest_copy(found, OURS) == "of_rover", "another one of that epoch was replaced"


def test_of_two_coordinators_with_the_same_epoch_one_leads() -> None:
    found = [facts(2, machine="base"), facts(2, machine="rover")]
    assert leads(2, "rover", found, OURS)
    assert not leads(2, "base", found, OURS)
    assert leads(3, "base", found, OURS)
    assert leads(1, "", [facts(9, authority=OTHER)], OURS)


def test_the_next_epoch_is_above_all_that_were_seen() -> None:
    assert next_epoch([], OURS) == 2
    assert next_epoch([facts(1), facts(4), facts(2, (6, 1))], OURS) == 7
    assert next_epoch([facts(1), facts(9, authority=OTHER)], OURS) == 2


def test_the_cluster_after_promotions() -> None:
    once = promoted(CLUSTER, BASE)
    place = once.coordinator
    assert (place.addr, place.port, place.standby) == ("10.0.0.2", 6013, ("rover",))
    assert (place.target, place.ssh_port, place.dora) == ("pi@10.0.0.2", 2222, "/opt/x/dora")
    assert place.former == ("10.0.0.1:6013",)
    twice = promoted(once, Moved("10.0.0.3", 6013, "rover")).coordinator
    assert (twice.addr, twice.standby) == ("10.0.0.3", ())
    assert twice.former == ("10.0.0.1:6013", "10.0.0.2:6013")
    reloaded = promoted(CLUSTER, Moved("10.0.0.3", 6013, "rover", ("10.0.0.2:6013",)))
    assert reloaded.coordinator.former == twice.former
    gone = promoted(CLUSTER, Moved("10.0.0.9", 6013, "removed")).coordinator
    assert (gone.addr, gone.host) == ("10.0.0.9", None)


def test_a_daemon_with_the_former_address_is_of_the_cluster() -> None:
    daemon = ExistingDaemon(
        id="rover",
        name="rover",
        port=1,
        coordinator=("10.0.0.1", 6013),
        user="pi",
        mine=True,
        pid=1,
        service=None,
        user_service=False,
        since=0.0,
        token=None,
        owner=None,
        dataflows=(),
    )
    assert daemon.coordinator_is_of(promoted(CLUSTER, BASE))
    other = daemon.model_copy(update={"coordinator": ("10.0.0.7", 6013)})
    assert not other.coordinator_is_of(promoted(CLUSTER, BASE))
