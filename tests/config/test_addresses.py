"""Which addresses are public."""

from __future__ import annotations

import pytest

from dora_config.addresses import is_public


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.7.7", "169.254.1.1"),
        *("100.64.0.1", "100.127.255.254"),
        *("::1", "fd7a:115c:a1e0::1", "fe80::1%eth0", "::ffff:10.0.0.1"),
    ],
)
def test_private_addresses_and_those_of_a_vpn_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:4860:4860::8888", "::ffff:8.8.8.8"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


def test_a_name_is_not_an_address() -> None:
    with pytest.raises(ValueError, match="robot"):
        is_public("robot")
