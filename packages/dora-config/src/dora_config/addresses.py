"""Check for public IP addresses; pure."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def is_public(address: str) -> bool:
    """Return whether packets to an IP address may cross the internet.

    Private, link-local, loopback and carrier-grade NAT addresses (Tailscale) are not public. Raises
    ValueError.
    """
    found = ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_global
