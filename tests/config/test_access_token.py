"""Tokens as text, and the successors of tokens."""

from __future__ import annotations

import pytest

from dora_config.access_token import MAX_REPLACED, Successor, Token

AUTHORITY = bytes(range(32))


def test_a_token_names_its_authority() -> None:
    text = str(Token("0123abcd", AUTHORITY))
    assert text == "dora1.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8.0123abcd"
    assert Token.parse(text) == Token("0123abcd", AUTHORITY)
    assert Token.parse(str(Token("a.b", AUTHORITY))).secret == "a.b"


@pytest.mark.parametrize(
    "text", ["0123abcd", "dora1", "dora1.", "dora1.AAAA.x", f"dora1.{'!' * 43}.x", "dora2.A.x"]
)
def test_other_texts_are_secrets(text: str) -> None:
    assert Token.parse(text) == Token(text)
    assert str(Token.parse(text)) == text


def test_secrets_match_or_not() -> None:
    token = Token("abc", AUTHORITY)
    assert token.has_secret("abc")
    assert token.has_secret(str(token))
    assert token.has_secret(str(Token("abc", bytes(32))))
    assert not token.has_secret("abcd")
    assert not token.has_secret("ä\udc80")


def test_the_secret_is_not_in_the_representation() -> None:
    assert "hunter2" not in repr(Token("hunter2")) + repr(Successor(Token("hunter2")))


def test_a_successor_is_text_too() -> None:
    successor = Successor(Token("b", AUTHORITY), (Token("a").digest,))
    assert Successor.parse(str(successor)) == successor


def test_a_successor_remembers_a_limited_number_of_tokens() -> None:
    successor = Successor(Token("0"))
    for number in range(1, 3 * MAX_REPLACED):
        successor = Successor(Token(str(number))).following(successor)
    assert len(successor.replaced) == MAX_REPLACED
    assert successor.replace(str(3 * MAX_REPLACED - 2)) == str(3 * MAX_REPLACED - 1)
    assert successor.replace("0") == "0"


def test_the_token_of_a_machine_does_not_reveal_that_of_its_cluster() -> None:
    token = Token("secret", bytes(32))
    machine = token.for_machine
    assert machine.is_of_machine
    assert not token.is_of_machine
    assert "secret" not in str(machine)
    assert machine.authority == token.authority
    assert Token.parse(str(machine)) == machine == machine.for_machine
    assert not token.has_secret(str(machine))
    assert machine.digest == token.digest
    assert Token("other").for_machine.secret != machine.secret


def test_a_successor_replaces_tokens_of_machines_by_one_of_a_machine() -> None:
    old, new = Token("old", bytes(32)), Token("new", bytes(32))
    of_cluster = Successor(new).following(Successor(old))
    assert of_cluster.replace(str(old)) == str(new)
    assert of_cluster.replace(str(old.for_machine)) == str(new.for_machine)
    of_machine = Successor(new.for_machine).following(Successor(old.for_machine))
    assert of_machine.replaced == of_cluster.replaced
    assert of_machine.replace(str(old.for_machine)) == str(new.for_machine)
    assert of_machine.replace("another") == "another"
