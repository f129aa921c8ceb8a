"""Limits of connections."""

from __future__ import annotations

import pytest

from dora_coordinator.io import limits as limits_module
from dora_coordinator.io.limits import (
    AttemptVerdict,
    ConnectionLimits,
    PendingConnection,
    PendingConnections,
    as_ipv4,
    is_loopback,
)


def test_failed_authentications_are_limited_by_address() -> None:
    limits = ConnectionLimits(open_at_once=10, untrusted_per_window=2)
    failures = [limits.failed("192.0.2.1", now) for now in (0.0, 1.0, 2.0)]
    assert failures == [
        AttemptVerdict.REPORTED,
        AttemptVerdict.LAST,
        AttemptVerdict.BLOCKED,
    ]
    assert limits.failed("192.0.2.2", 2.0) is AttemptVerdict.REPORTED
    assert limits.failed("192.0.2.1", 60.5) is AttemptVerdict.LAST  # the first was a minute ago


def test_addresses_of_one_ipv6_network_are_counted_together() -> None:
    limits = ConnectionLimits(open_at_once=10, untrusted_per_window=1)
    assert limits.failed("2001:db8::1", 0.0) is AttemptVerdict.LAST
    assert limits.failed("2001:db8::ffff:2", 0.0) is AttemptVerdict.BLOCKED
    assert limits.failed("2001:db8:0:1::1", 0.0) is AttemptVerdict.LAST
    assert (
        limits.failed("fe80::1%eth0", 0.0) is AttemptVerdict.LAST
    )  # all machines of the local network
    assert limits.failed("fe80::2%eth0", 0.0) is AttemptVerdict.LAST


def test_loopback_is_never_blocked() -> None:
    limits = ConnectionLimits(open_at_once=10, untrusted_per_window=1)
    assert {limits.failed("127.0.0.1", 0.0) for _ in range(5)} == {AttemptVerdict.REPORTED}


def test_open_connections_are_counted() -> None:
    limits = ConnectionLimits(open_at_once=1, untrusted_per_window=1)
    assert limits.opened()
    assert not limits.opened()
    limits.closed()
    assert limits.opened()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("robot.lan", False),
    ],
)
def test_is_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


def test_mapped_ipv4_addresses_are_converted() -> None:
    assert as_ipv4("::ffff:192.0.2.1") == as_ipv4("192.0.2.1") == "192.0.2.1"
    assert [as_ipv4(other) for other in ("fd00::1", "fe80::1%eth0", "testclient")] == [
        "fd00::1", "fe80::1%eth0", "testclient"
    ]  # fmt: skip


class Arrivals:
    """Pending connections, by name, and those that were dropped."""

    def __init__(self, total: int) -> None:
        self.all = PendingConnections(total)
        self.dropped: list[str] = []

    def add(self, source: str, name: str) -> PendingConnection:
        new, crowded_out = self.all.add(source, lambda: self.dropped.append(name))
        if crowded_out is not None:
            crowded_out.drop()
        return new


def test_the_oldest_pending_connection_of_a_crowded_source_is_dropped() -> None:
    arrivals = Arrivals(8)
    first = arrivals.add("a", "a0")
    arrivals.add("a", "a1")
    arrivals.add("b", "b0")
    first.ended()
    first.ended()
    arrivals.add("a", "a2")
    assert arrivals.dropped == []
    arrivals.add("a", "a3")
    assert arrivals.dropped == ["a1"]


def test_sources_that_showed_a_token_lose_pending_connections_last() -> None:
    arrivals = Arrivals(8)
    arrivals.add("known", "accepted").accepted()
    for name in ("k0", "k1"):
        arrivals.add("known", name)
    for number in range(6):
        arrivals.add(f"stranger{number}", f"s{number}")
    assert arrivals.dropped == []
    arrivals.add("known", "k2")
    assert arrivals.dropped == ["k0"]  # more than a quarter
    arrivals.add("stranger9", "s9")
    assert arrivals.dropped == ["k0", "s0"]


def test_the_number_of_remembered_sources_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "MAX_ADDRESSES", 1)
    arrivals = Arrivals(4)
    for source in ("forgotten", "known"):
        arrivals.add(source, source).accepted()
    for source in ("known", "forgotten", "a", "b", "c"):
        arrivals.add(source, source)
    assert arrivals.dropped == ["forgotten"]
