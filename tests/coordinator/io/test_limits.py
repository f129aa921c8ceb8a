"""Limits of connections."""

from __future__ import annotations

import pytest

from dora_coordinator.io.limits import ConnectionLimits, Failure, as_ipv4, is_loopback


def test_failed_authentications_are_limited_by_address() -> None:
    limits = ConnectionLimits(open_at_once=10, untrusted_per_window=2)
    failures = [limits.failed("192.0.2.1", now) for now in (0.0, 1.0, 2.0)]
    assert failures == [Failure.REPORTED, Failure.LAST, Failure.BLOCKED]
    assert limits.failed("192.0.2.2", 2.0) is Failure.REPORTED
    assert limits.failed("192.0.2.1", 60.5) is Failure.LAST  # the first was a minute ago


def test_addresses_of_one_ipv6_network_are_counted_together() -> None:
    limits = ConnectionLimits(open_at_once=10, untrusted_per_window=1)
    assert limits.failed("2001:db8::1", 0.0) is Failure.LAST
    assert limits.failed("2001:db8::ffff:2", 0.0) is Failure.BLOCKED
    assert limits.failed("2001:db8:0:1::1", 0.0) is Failure.LAST
    assert limits.failed("fe80::1%eth0", 0.0) is Failure.LAST  # all machines of the local network
    assert limits.failed("fe80::2%eth0", 0.0) is Failure.LAST


def test_loopback_is_never_blocked() -> None:
    limits = ConnectionLimits(open_at_once=10, untrusted_per_window=1)
    assert {limits.failed("127.0.0.1", 0.0) for _ in range(5)} == {Failure.REPORTED}


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
