"""Limits of connections."""

from __future__ import annotations

import pytest

from dora_coordinator.io.limits import ConnectionLimits, as_ipv4, is_loopback


def test_connections_per_minute_and_address_are_limited() -> None:
    limits = ConnectionLimits(open_at_once=10, untrusted_per_window=2)
    assert [limits.too_fast("192.0.2.1", now) for now in (0.0, 1.0, 2.0)] == [False, False, True]
    assert not limits.too_fast("192.0.2.2", 2.0)
    assert not limits.too_fast("192.0.2.1", 60.5)


def test_loopback_is_exempt() -> None:
    limits = ConnectionLimits(open_at_once=10, untrusted_per_window=1)
    assert not any(limits.too_fast("127.0.0.1", 0.0) for _ in range(5))


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
