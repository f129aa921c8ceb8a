"""The copy that is used, the next epoch, and the cluster after a promotion."""

from __future__ import annotations

import pytest
from support.claims import forged, new_authority, signed

from dora_cluster.decisions.existing_daemons import ExistingDaemon
from dora_cluster.decisions.promotion import (
    StandbyFacts,
    StoreFacts,
    by_age,
    leads,
    newer_store,
    next_epoch,
    parse_copy,
    promoted,
    returned,
    standbys_of,
)
from dora_config.access import Moved
from dora_config.cluster.loader import parse_cluster
from dora_config.cluster.models import Cluster
from dora_config.protocol.claims import Claim
from dora_config.protocol.daemon import CoordinatorCopy
from dora_coordinator.io.authority import Authority

AUTHORITY, ROBOT = new_authority(), new_authority()
OURS, OTHER = AUTHORITY.fingerprint, ROBOT.fingerprint
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
    by: Authority = AUTHORITY,
    machine: str = "",
) -> StandbyFacts:
    """What a machine reports: the epoch that it obeys, and its copy as epoch and number."""
    kept = None
    if copy is not None:
        head = {"authority": by.fingerprint, "machine": machine}
        kept = {**head, "epoch": copy[0], "number": copy[1], "age": 5.0}
    claim = signed(by, seen, machine).model_dump()
    return StandbyFacts.of({"claim": claim, "copy": kept, "store": None}, OURS, "rover")


def test_the_newest_copy_of_this_cluster_is_used() -> None:
    found = {
        "old": facts(1, (1, 900)),
        "newer": facts(2, (2, 12)),
        "newest": facts(2, (2, 13)),
        "other": facts(9, (9, 9), by=ROBOT),
        "none": facts(3),
    }
    assert by_age(found) == ["newest", "newer", "old"]
    assert by_age({"none": facts(1), "other": found["other"]}) == []
    found["of_rover"] = facts(2, (2, 5), machine="rover")
    assert by_age(found)[0] == "of_rover", "another one of that epoch was replaced"


def test_only_a_copy_that_a_coordinator_of_the_cluster_made_is_used() -> None:
    def copy(by: Authority, **changes: object) -> dict[str, object]:
        made = CoordinatorCopy(authority=OURS, epoch=2, number=7, sealed="c2VjcmV0")
        made = made.model_copy(update={"proof": by.sign_text(made.text)})
        return made.model_copy(update=changes).model_dump()

    found = parse_copy(copy(AUTHORITY), OURS)
    assert found is not None
    assert found.number == 7
    for wrong in (
        copy(ROBOT),
        copy(AUTHORITY, number=8),
        copy(AUTHORITY, epoch=1 << 62),
        copy(AUTHORITY, sealed="b3RoZXI="),
        copy(AUTHORITY, authority=OTHER),
        {},
        None,
    ):
        assert parse_copy(wrong, OURS) is None


def test_of_two_coordinators_with_the_same_epoch_one_leads() -> None:
    found = [facts(2, machine="base"), facts(2, machine="rover")]
    assert leads(Claim(epoch=2, machine="rover"), found)
    assert not leads(Claim(epoch=2, machine="base"), found)
    assert leads(Claim(epoch=3, machine="base"), found)
    assert leads(Claim(), [facts(9, by=ROBOT)])


def test_the_next_epoch_is_above_all_that_were_seen() -> None:
    copy = CoordinatorCopy(authority=OURS, epoch=1, number=1)
    assert next_epoch([], copy) == 2
    newer = copy.model_copy(update={"epoch": 6})
    assert next_epoch([facts(1), facts(4)], newer) == 7
    assert next_epoch([facts(1), facts(9, by=ROBOT)], copy) == 2


def test_a_forged_claim_counts_for_nothing_and_is_named() -> None:
    claim = forged(OURS)
    answer = {"claim": claim.model_dump(), "copy": None, "store": None}
    one = StandbyFacts.of(answer, OURS, "rover")
    assert one == StandbyFacts(forged=claim)
    assert leads(Claim(), [one])
    answer = {"claim": {"epoch": "x"}, "copy": {"epoch": []}, "store": {"claim": 1}}
    assert StandbyFacts.of(answer, OURS, "rover") == StandbyFacts()


def store_of(claim: Claim, number: int, machine: str = "rover") -> StoreFacts | None:
    answer = {"store": {"claim": claim.model_dump(), "number": number}}
    return StoreFacts.of(answer, OURS, machine)


def test_a_store_counts_on_the_machine_of_its_coordinator_only() -> None:
    claim = signed(AUTHORITY, 2, "rover")
    assert store_of(claim, 7) == StoreFacts(claim=claim, number=7)
    assert store_of(claim, 1 << 62, "robot") is None, "a robot that keeps the claim of another"
    assert store_of(signed(AUTHORITY, 1), 7) is None
    assert store_of(signed(AUTHORITY, 1), 7, "") is not None, "the first coordinator"
    assert store_of(signed(ROBOT, 2, "rover"), 7) is None
    assert StoreFacts.of({"store": None}, OURS, "rover") is None


@pytest.mark.parametrize(
    ("copy", "newer"),
    [
        (None, "rover"),
        ((1, "", 999), "rover"),
        ((2, "base", 999), "rover"),  # another one of that epoch was replaced
        ((2, "rover", 6), "rover"),
        ((2, "rover", 7), None),
        ((3, "base", 1), None),
    ],
)
def test_a_store_that_is_newer_than_each_copy_is_used(
    copy: tuple[int, str, int] | None, newer: str | None
) -> None:
    stores = {
        "rover": StoreFacts(claim=Claim(epoch=2, machine="rover"), number=7),
        "": StoreFacts(claim=Claim(), number=500),
    }
    made = None
    if copy is not None:
        epoch, machine, number = copy
        made = CoordinatorCopy(authority=OURS, epoch=epoch, machine=machine, number=number)
    assert newer_store(stores, made) == newer
    assert newer_store({}, made) is None


def test_the_cluster_after_promotions() -> None:
    once = promoted(CLUSTER, BASE)
    place = once.coordinator
    assert (place.addr, place.port, place.standby) == ("10.0.0.2", 6013, ("base", "rover"))
    assert (place.target, place.ssh_port, place.dora) == ("pi@10.0.0.2", 2222, "/opt/x/dora")
    assert place.former == ("10.0.0.1:6013",)
    twice_cluster = promoted(once, Moved("10.0.0.3", 6013, "rover"))
    twice = twice_cluster.coordinator
    assert (twice.addr, twice.standby) == ("10.0.0.3", ("base", "rover"))
    assert twice.former == ("10.0.0.1:6013", "10.0.0.2:6013")
    reloaded = promoted(CLUSTER, Moved("10.0.0.3", 6013, "rover", ("10.0.0.2:6013",)))
    assert reloaded.coordinator.former == twice.former
    back = returned(CLUSTER, twice_cluster)
    assert back.coordinator.addr == "10.0.0.1"
    assert back.coordinator.former == ("10.0.0.2:6013", "10.0.0.3:6013")
    again = promoted(twice_cluster, BASE).coordinator
    assert again.former == ("10.0.0.1:6013", "10.0.0.3:6013")
    gone = promoted(CLUSTER, Moved("10.0.0.9", 6013, "removed")).coordinator
    assert (gone.addr, gone.host) == ("10.0.0.9", None)


def test_the_set_of_standbys_does_not_shrink_by_promotions() -> None:
    def names(cluster: Cluster) -> list[str]:
        return [one.machine for one in standbys_of(cluster)]

    assert names(CLUSTER) == ["base", "rover"]
    once = promoted(CLUSTER, BASE)
    assert names(once) == ["rover"]
    twice = promoted(once, Moved("10.0.0.3", 6013, "rover"))
    assert names(twice) == ["base"]
    assert names(promoted(twice, BASE)) == ["rover"]
    assert names(returned(CLUSTER, twice)) == ["base", "rover"]
    there = parse_cluster("""\
coordinator: {addr: 10.0.0.4, standby: [base, rover]}
machines:
  - {id: base, host: 10.0.0.2}
  - {id: rover, host: 10.0.0.3}
  - {id: station, host: 10.0.0.4}
""").cluster
    assert names(promoted(there, BASE)) == ["rover", "station"], "the machine of the first one"


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
