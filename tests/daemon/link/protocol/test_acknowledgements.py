"""When stored messages are acknowledged."""

from __future__ import annotations

from dora_daemon.link.protocol.acknowledgements import LARGE, MAX_BYTES, AckPolicy


def acknowledged(policy: AckPolicy, *sizes: int) -> list[bool | None]:
    """Store messages one by one; return what is to be done after each."""
    found = []
    for size in sizes:
        policy.stored(size)
        found.append(policy.take())
    return found


def test_nothing_is_due_until_a_message_is_stored() -> None:
    policy = AckPolicy()
    assert policy.take() is None
    policy.begin_round(100)
    policy.stored(1)
    policy.stored(1)
    assert policy.take() is False
    assert policy.take() is None


def test_a_quarter_of_the_window_does_not_wait() -> None:
    policy = AckPolicy()
    policy.begin_round(16)
    assert acknowledged(policy, *[1] * 9) == [False] * 3 + [True] + [False] * 3 + [True] + [False]


def test_a_small_window_never_waits() -> None:
    policy = AckPolicy()
    policy.begin_round(3)
    assert acknowledged(policy, 1, 1) == [True, True]


def test_large_messages_and_many_bytes_do_not_wait() -> None:
    policy = AckPolicy()
    policy.begin_round(1000)
    assert acknowledged(policy, LARGE, LARGE + 1, LARGE) == [False, True, False]
    count = MAX_BYTES // LARGE - 2
    assert acknowledged(policy, *[LARGE] * (count + 1))[-2:] == [False, True]
