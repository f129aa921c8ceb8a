"""The coordinator that a daemon tries next, and the epoch that it obeys."""

from __future__ import annotations

from pathlib import Path

import pytest

from dora_config.access import Endpoint
from dora_config.access_token import Token
from dora_config.protocol.daemon import Coordinators
from dora_daemon.agent.coordinator_access import CoordinatorAccess, KnownCoordinators

GIVEN = "10.0.0.1:6013"
BASE, ROVER = "10.0.0.2:6013", "[fd00::3]:6013"
CLUSTER = "ab" * 32
TOKEN = str(Token("secret", bytes.fromhex(CLUSTER)))


def known(epoch: int, address: str = "", *standbys: str) -> KnownCoordinators:
    highest = Coordinators(epoch=epoch, address=address, standbys=standbys)
    return KnownCoordinators(authority=CLUSTER, highest=highest)


@pytest.mark.parametrize(
    ("seen", "order"),
    [
        (KnownCoordinators(), [GIVEN]),
        (known(1, GIVEN, BASE, ROVER), [GIVEN, BASE, ROVER]),
        (known(1, "10.0.0.7:6013", BASE), [GIVEN, BASE, "10.0.0.7:6013"]),
        (known(2, BASE, ROVER), [BASE, ROVER, GIVEN]),
        (known(3, ROVER, BASE, ROVER), [ROVER, BASE, GIVEN]),
        (known(2), [GIVEN]),
    ],
)
def test_order_of_addresses(seen: KnownCoordinators, order: list[str]) -> None:
    assert seen.addresses(GIVEN) == order


@pytest.mark.parametrize(
    ("seen", "epoch", "authority", "obeyed"),
    [
        (KnownCoordinators(), 1, CLUSTER, True),
        (known(1), 1, CLUSTER, True),
        (known(1), 2, CLUSTER, True),
        (known(2, BASE), 1, CLUSTER, False),
        (known(2, BASE), 1, "cd" * 32, True),  # the daemon was moved to another cluster
    ],
)
def test_the_highest_epoch_is_obeyed(
    seen: KnownCoordinators, epoch: int, authority: str, obeyed: bool
) -> None:
    found = seen.following(Coordinators(epoch=epoch, address=ROVER), authority)
    assert (found is not None) == obeyed


def access(folder: Path) -> CoordinatorAccess:
    return CoordinatorAccess(folder, lambda: Endpoint("10.0.0.1", 6013, TOKEN))


def test_addresses_are_tried_in_turn_and_the_epoch_survives(tmp_path: Path) -> None:
    first = access(tmp_path)
    assert first.failed()  # after the only address there is a pause
    assert first.follow(Coordinators(address=GIVEN, standbys=(BASE, ROVER)), CLUSTER)
    tried = []
    for _ in range(4):
        tried.append(str(first.endpoint()))
        first.failed()
    assert tried == [GIVEN, BASE, ROVER, GIVEN]
    assert first.follow(Coordinators(epoch=2, address=BASE, standbys=(ROVER,)), CLUSTER)
    first.lost()
    assert str(first.endpoint()) == BASE
    again = access(tmp_path)
    assert str(again.endpoint()) == BASE
    assert not again.follow(Coordinators(epoch=1, address=GIVEN), CLUSTER)
    seen = again.known(CLUSTER).highest
    assert (seen.epoch, seen.address) == (2, BASE)
    assert again.known("cd" * 32).highest.epoch == 0


def test_what_promote_writes_is_used_at_the_next_attempt(tmp_path: Path) -> None:
    made = access(tmp_path)
    assert made.follow(Coordinators(address=GIVEN), CLUSTER)
    (tmp_path / "coordinators.json").write_text(known(2, BASE).model_dump_json())
    assert str(made.endpoint()) == BASE
    (tmp_path / "coordinators.json").write_text(known(1, ROVER).model_dump_json())  # older
    assert str(made.endpoint()) == BASE
    (tmp_path / "coordinators.json").write_text("{")
    assert str(made.endpoint()) == BASE


def test_a_token_of_another_cluster_ignores_what_was_seen(tmp_path: Path) -> None:
    made = access(tmp_path)
    assert made.follow(Coordinators(epoch=2, address=BASE), "cd" * 32)
    assert str(made.endpoint()) == GIVEN
