"""Which tokens a coordinator accepts, over rotations and restarts."""

from __future__ import annotations

from dora_config.access_token import Token
from dora_coordinator.state.tokens import Accepted, TokenRecord, Tokens

AUTHORITY = bytes(range(32))
DAY = 24 * 3600.0


def restarted(tokens: Tokens, given: str) -> Tokens:
    """The next coordinator with the stored record."""
    record = TokenRecord.model_validate_json(tokens.record.model_dump_json())
    return Tokens.load(given, AUTHORITY, record)


def test_an_old_token_gets_the_hash_of_the_authority() -> None:
    tokens = Tokens.load("first", AUTHORITY, None)
    assert tokens.current == Token("first", AUTHORITY)
    for given in ("first", str(tokens.current), str(Token("first", bytes(32)))):
        assert tokens.check(given, 0.0) == Accepted(current=True)
    assert tokens.check("second", 0.0) is None


def test_a_replaced_token_expires_after_its_grace_period() -> None:
    tokens = Tokens.load("first", AUTHORITY, None)
    tokens.rotate("second", DAY, 1000.0)
    assert tokens.current == Token("second", AUTHORITY)
    assert tokens.check("second", 1000.0) == Accepted(current=True)
    assert tokens.check("first", 999.0 + DAY) == Accepted(current=False)
    assert tokens.check("first", 1000.0 + DAY) is None


def test_a_rotation_without_grace_ends_the_grace_of_earlier_ones() -> None:
    tokens = Tokens.load("first", AUTHORITY, None)
    tokens.rotate("second", DAY, 0.0)
    tokens.rotate("third", 0.0, 10.0)
    assert [tokens.check(one, 10.0) for one in ("first", "second")] == [None, None]
    assert tokens.check("third", 10.0) == Accepted(current=True)


def test_a_replaced_token_stays_refused_when_the_clock_goes_back() -> None:
    tokens = Tokens.load("first", AUTHORITY, None)
    tokens.rotate("second", 0.0, 1000.0)
    assert restarted(tokens, "first").check("first", 10.0) is None


def test_a_restarted_coordinator_continues_with_the_successor_of_its_token() -> None:
    tokens = Tokens.load("first", AUTHORITY, None)
    tokens.rotate("second", DAY, 0.0)
    tokens.rotate("third", DAY, 10.0)
    for given in ("first", "second", "third", str(Token("first", AUTHORITY))):
        again = restarted(tokens, given)
        assert again.current == Token("third", AUTHORITY)
        assert again.record == tokens.record
        assert again.check("first", DAY - 1) == Accepted(current=False)
        assert again.check("first", DAY) is None
        assert again.check("second", DAY + 9) == Accepted(current=False)


def test_a_token_that_the_user_has_chosen_replaces_the_record() -> None:
    tokens = Tokens.load("first", AUTHORITY, None)
    tokens.rotate("second", DAY, 0.0)
    again = restarted(tokens, "chosen")
    assert again.current == Token("chosen", AUTHORITY)
    assert [again.check(one, 1.0) for one in ("first", "second")] == [None, None]


def test_another_authority_keeps_the_secret() -> None:
    tokens = Tokens.load("first", AUTHORITY, None)
    tokens.rotate("second", DAY, 0.0)
    other = bytes(32)
    again = Tokens.load("first", other, tokens.record)
    assert again.current == Token("second", other)


def test_the_token_of_a_machine_is_accepted_as_such_over_rotations() -> None:
    tokens = Tokens.load("first", AUTHORITY, None)
    first = tokens.current.for_machine
    for given in (str(first), first.secret):
        assert tokens.check(given, 0.0) == Accepted(current=True, machine=True)
    tokens.rotate("second", DAY, 1000.0)
    second = tokens.current.for_machine
    assert tokens.check(str(second), 1000.0) == Accepted(current=True, machine=True)
    assert tokens.check(str(first), 999.0 + DAY) == Accepted(current=False, machine=True)
    assert tokens.check(str(first), 1000.0 + DAY) is None
    assert tokens.check(first.secret.removeprefix("machine-"), 1000.0) is None
    assert tokens.check("machine-second", 1000.0) is None
