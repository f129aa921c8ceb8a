"""The coordinator that a daemon tries next, and the epoch that it obeys."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.claims import forged, new_authority, signed

from dora_config.access import Endpoint
from dora_config.access_token import Token
from dora_config.protocol.claims import Signature
from dora_config.protocol.daemon import Coordinators
from dora_daemon.agent.coordinator_access import CoordinatorAccess, KnownCoordinators

GIVEN = "10.0.0.1:6013"
BASE, ROVER = "10.0.0.2:6013", "[fd00::3]:6013"
AUTHORITY = new_authority()
CLUSTER = AUTHORITY.fingerprint
TOKEN = str(Token("secret", bytes.fromhex(CLUSTER)))


def known(epoch: int, address: str = "", *standbys: str) -> KnownCoordinators:
    claim = signed(AUTHORITY, epoch, address=address)
    return KnownCoordinators(authority=CLUSTER, claim=claim, standbys=standbys)


def coordinators(epoch: int, address: str, *standbys: str) -> Coordinators:
    return Coordinators(claim=signed(AUTHORITY, epoch, address=address), standbys=standbys)


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
    ("seen", "epoch", "cluster", "obeyed"),
    [
        (KnownCoordinators(), 1, "ours", True),
        (known(1), 1, "ours", True),
        (known(1), 2, "ours", True),
        (known(2, BASE), 1, "ours", False),
        (known(2, BASE), 1, "other", True),  # the daemon was moved to another cluster
    ],
)
def test_the_highest_epoch_is_obeyed(
    seen: KnownCoordinators, epoch: int, cluster: str, obeyed: bool
) -> None:
    authority = CLUSTER if cluster == "ours" else "cd" * 32
    found = seen.following(coordinators(epoch, ROVER), authority)
    assert (found is not None) == obeyed


def access(folder: Path) -> CoordinatorAccess:
    return CoordinatorAccess(folder, lambda: Endpoint("10.0.0.1", 6013, TOKEN))


def test_addresses_are_tried_in_turn_and_the_epoch_survives(tmp_path: Path) -> None:
    first = access(tmp_path)
    assert first.failed()  # after the only address there is a pause
    assert first.follow(coordinators(1, GIVEN, BASE, ROVER), CLUSTER) is None
    tried = []
    for _ in range(4):
        tried.append(str(first.endpoint()))
        first.failed()
    assert tried == [GIVEN, BASE, ROVER, GIVEN]
    assert first.follow(coordinators(2, BASE, ROVER), CLUSTER) is None
    first.lost()
    assert str(first.endpoint()) == BASE
    again = access(tmp_path)
    assert str(again.endpoint()) == BASE
    assert f"the coordinator at {BASE} (epoch 2, signed by " in (
        again.follow(coordinators(1, GIVEN), CLUSTER) or ""
    )
    seen = again.known(CLUSTER).claim
    assert (seen.epoch, seen.address) == (2, BASE)
    assert again.known("cd" * 32).claim.epoch == 0


def test_what_promote_writes_is_used_at_the_next_attempt(tmp_path: Path) -> None:
    made = access(tmp_path)
    assert made.follow(coordinators(1, GIVEN), CLUSTER) is None
    (tmp_path / "coordinators.json").write_text(known(2, BASE).model_dump_json())
    assert str(made.endpoint()) == BASE
    (tmp_path / "coordinators.json").write_text(known(1, ROVER).model_dump_json())  # older
    assert str(made.endpoint()) == BASE
    (tmp_path / "coordinators.json").write_text("{")
    assert str(made.endpoint()) == BASE


def test_a_token_of_another_cluster_ignores_what_was_seen(tmp_path: Path) -> None:
    other = new_authority()
    made = access(tmp_path)
    found = Coordinators(claim=signed(other, 2, address=BASE))
    assert made.follow(found, other.fingerprint) is None
    assert str(made.endpoint()) == GIVEN


def test_a_forged_claim_is_ignored_wherever_it_comes_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = access(tmp_path)
    assert made.follow(coordinators(2, BASE), CLUSTER) is None
    claim = forged(CLUSTER)
    own = claim.model_copy(update={"cluster": "", "proof": Signature()})
    replayed = claim.model_copy(update={"proof": coordinators(2, BASE).claim.proof})
    for one in (claim, own, replayed):
        assert "not signed" in (made.follow(Coordinators(claim=one), CLUSTER) or "")
        made.learn(one, CLUSTER)
        known = KnownCoordinators(authority=CLUSTER, claim=one)
        (tmp_path / "coordinators.json").write_text(known.model_dump_json())
        for _ in range(2):
            assert str(made.endpoint()) == BASE
        assert str(access(tmp_path).endpoint()) == GIVEN, "a daemon that has seen no other"
    lines = [text for text in caplog.messages if "coordinators.json: ignored " in text]
    assert len(lines) == 6, "each daemon logs it once"
    assert '(epoch 4611686018427387904, signed by "robot" at ' in lines[0]


def test_the_successor_of_a_coordinator_is_learned_without_its_standbys(tmp_path: Path) -> None:
    made = access(tmp_path)
    assert made.follow(coordinators(1, GIVEN, ROVER), CLUSTER) is None
    made.learn(signed(AUTHORITY, 2, "base", BASE), CLUSTER)
    known = made.known(CLUSTER)
    assert (known.claim.address, known.standbys) == (BASE, (ROVER,))
    made.learn(signed(AUTHORITY, 1, "", GIVEN), CLUSTER)  # older
    assert made.known(CLUSTER) == known
