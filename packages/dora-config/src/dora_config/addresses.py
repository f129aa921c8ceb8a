"""IP addresses: which are public; pure."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

_SHARED: Final = ip_network("100.64.0.0/10")
"""Carrier-grade NAT, which Tailscale uses for its addresses."""


def is_public(address: str) -> bool:
    """Return whether packets to an IP address may cross the internet.

    Private, link-local, loopback and carrier-grade NAT addresses are not public. Raises ValueError.
    """
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.version == 4 and found in _SHARED:
        return False
    return not (found.is_private or found.is_link_local or found.is_loopback)
