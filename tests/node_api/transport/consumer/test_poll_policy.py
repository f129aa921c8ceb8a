"""When a waiting consumer polls: after short sleeps, and less often after failures."""

from __future__ import annotations

from dora_node_api.transport.consumer.poll_policy import (
    FIRST_POLL_NS,
    FIRST_POLLS,
    MAX_PATIENCE,
    POLL_NS,
    SOON_NS,
    PollPolicy,
)


def sleeps_until_poll(policy: PollPolicy) -> int:
    sleeps = 0
    while not policy.credit:
        policy.slept(SOON_NS - 1)
        sleeps += 1
    return sleeps


def test_polls_after_two_short_sleeps() -> None:
    policy = PollPolicy()
    for _ in range(100):
        policy.slept(SOON_NS)
    assert not policy.credit
    assert sleeps_until_poll(policy) == 2


def test_each_failure_doubles_the_sleeps_before_the_next_poll() -> None:
    policy = PollPolicy()
    needed = []
    for _ in range(12):
        needed.append(sleeps_until_poll(policy))
        policy.polled(found=False)
    assert needed == [2, 4, 8, 16, 32, 64, 128, 256, *[MAX_PATIENCE] * 4]


def test_successes_allow_some_failures() -> None:
    policy = PollPolicy()
    sleeps_until_poll(policy)
    for _ in range(20):
        policy.polled(found=True)
    failures = 0
    while policy.credit:
        policy.polled(found=False)
        failures += 1
    assert failures == 4
    assert sleeps_until_poll(policy) == 4


def test_first_polls_are_longer() -> None:
    policy = PollPolicy()
    sleeps_until_poll(policy)
    lengths = [policy.poll_ns() for _ in range(FIRST_POLLS + 2)]
    assert lengths == [*[FIRST_POLL_NS] * FIRST_POLLS, POLL_NS, POLL_NS]
