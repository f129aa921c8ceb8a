"""When a waiting consumer polls: after short sleeps, and less often after failures."""

from __future__ import annotations

from dora_node_api.transport.consumer.poll_policy import (
    ANSWER_NS,
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


def test_an_answer_from_another_machine_may_take_longer() -> None:
    policy = PollPolicy()
    policy.answer = True
    for _ in range(100):
        policy.slept(ANSWER_NS)
    assert not policy.credit
    for _ in range(2):
        policy.slept(ANSWER_NS - 1)
    assert policy.credit
    assert policy.poll_ns() == ANSWER_NS
    policy.answer = False  # as that of a node that only reads a stream
    assert policy.poll_ns() <= FIRST_POLL_NS


AWAKE_NS, WAKE_UP_NS = 330_000, 90_000
"""A round trip between machines without sleeping nodes, and what each sleeping one adds."""


def awake_after(policies: tuple[PollPolicy, PollPolicy], turns: int) -> bool:
    """Whether both of two nodes that answer each other poll with success in the end."""
    asleep = [True, True]
    for _ in range(turns):
        for policy, own in ((policies[0], 0), (policies[1], 1)):
            policy.answer = True
            waits = AWAKE_NS + WAKE_UP_NS * asleep[1 - own]
            if policy.credit:
                asleep[own] = waits > policy.poll_ns()
                policy.polled(found=not asleep[own])
            else:
                asleep[own] = True
                policy.slept(waits + WAKE_UP_NS)
    return asleep == [False, False]


def test_nodes_of_two_machines_that_both_sleep_find_back() -> None:
    assert awake_after((PollPolicy(), PollPolicy()), 10)
    tired = PollPolicy(), PollPolicy()
    for policy in tired:
        for _ in range(20):  # the machines were busy for a while
            sleeps_until_poll(policy)
            policy.polled(found=False)
    assert not awake_after(tired, MAX_PATIENCE // 2)
    assert awake_after(tired, MAX_PATIENCE)
