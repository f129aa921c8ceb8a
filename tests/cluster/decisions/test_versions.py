"""Which machines a rollback returns, and that no sequence of rollbacks leads forward."""

from __future__ import annotations

import random

import pytest

from dora_cluster.decisions.versions import RollbackPlan, Versions, plan

RELEASES = ("0.0.9", "0.1.0", "0.2.0", "0.10.0")


def fleet(**machines: tuple[str, str | None]) -> dict[str, Versions]:
    return {
        name: Versions(now, before, there=tuple(filter(None, (before, now))))
        for name, (now, before) in machines.items()
    }


def test_whole_cluster_was_upgraded() -> None:
    found = plan(
        fleet(robot=("0.2.0", "0.1.0"), gpu=("0.2.0", "0.1.0")), Versions("0.2.0", "0.1.0"), None
    )
    assert found == RollbackPlan({"robot": "0.1.0", "gpu": "0.1.0"}, "0.1.0", {})
    assert found.versions == "0.1.0"


def test_upgrade_that_stopped_half_way() -> None:
    """The machine that it did not reach was upgraded before."""
    found = plan(
        fleet(robot=("0.2.0", "0.1.0"), gpu=("0.1.0", "0.0.9")), Versions("0.2.0", "0.1.0"), None
    )
    assert found == RollbackPlan({"robot": "0.1.0"}, "0.1.0", {"gpu": "0.1.0"})


def test_upgrade_that_reached_only_the_coordinator() -> None:
    found = plan(fleet(robot=("0.1.0", "0.0.9")), Versions("0.2.0", "0.1.0"), None)
    assert found == RollbackPlan({}, "0.1.0", {"robot": "0.1.0"})


def test_machines_return_to_different_versions() -> None:
    found = plan(fleet(robot=("0.2.0", "0.1.0"), gpu=("0.2.0", "0.0.9")), None, None)
    assert found.targets == {"robot": "0.1.0", "gpu": "0.0.9"}
    assert found.versions == "0.0.9 and 0.1.0"


def test_versions_are_not_ordered_as_text() -> None:
    found = plan(fleet(robot=("0.10.0", "0.9.0"), gpu=("0.2.0", "0.1.0")), None, None)
    assert found.targets == {"robot": "0.9.0"}


def test_returned_machine_is_not_returned_further() -> None:
    machines = fleet(gpu=("0.1.0", "0.0.9")) | {"robot": Versions("0.1.0", returned=True)}
    assert plan(machines, None, None) == RollbackPlan({}, None, {"gpu": "0.1.0", "robot": "0.1.0"})


@pytest.mark.parametrize("to", ["0.1.0", "0.2.0"])
def test_rollback_to_a_given_version(to: str) -> None:
    machines = fleet(robot=("0.2.0", "0.1.0"), gpu=("0.1.0", "0.2.0"))
    found = plan(machines, Versions("0.2.0", "0.1.0", there=("0.2.0", "0.1.0")), to)
    assert found.targets == {name: to for name, one in machines.items() if one.now != to}
    assert found.coordinator == (None if to == "0.2.0" else to)
    unknown = plan(machines, Versions("0.3.0", there=("0.3.0",)), to)
    assert unknown.coordinator is None


@pytest.mark.parametrize("seed", range(200))
def test_second_rollback_has_no_targets(seed: int) -> None:
    """``seed`` chooses upgrades that reach some of the machines each."""
    chance = random.Random(seed)
    machines = {name: Versions("0.0.9") for name in ("one", "two", "three")}
    for release in sorted(chance.sample(RELEASES[1:], chance.randint(1, 3)), key=RELEASES.index):
        for name in [*machines][: chance.randint(1, 3)]:
            if machines[name].now != release:
                machines[name] = Versions(release, machines[name].now)
    while (found := plan(machines, None, None)).targets:
        for name, target in found.targets.items():
            assert RELEASES.index(target) < RELEASES.index(machines[name].now)
            machines[name] = Versions(target, returned=True)
    assert plan(machines, None, None).targets == {}
