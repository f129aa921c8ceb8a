"""Limits of open connections and of the connection rate per address; pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from ipaddress import IPv6Address, ip_address

WINDOW = 60.0
"""Seconds."""

MAX_ADDRESSES = 10_000
"""Addresses remembered at once; the least recent one is forgotten."""


class ConnectionLimits:
    """Counts all open connections, and recent connections without a token by address."""

    def __init__(self, *, open_at_once: int, untrusted_per_window: int) -> None:
        self._open_at_once = open_at_once
        self._untrusted_per_window = untrusted_per_window
        self._open = 0
        self._recent: OrderedDict[str, deque[float]] = OrderedDict()

    def too_fast(self, address: str, now: float) -> bool:
        """Record an untrusted connection of ``address``; return whether it exceeds the limit."""
        if is_loopback(address):
            return False
        times = self._recent.setdefault(address, deque())
        self._recent.move_to_end(address)
        if len(self._recent) > MAX_ADDRESSES:
            self._recent.popitem(last=False)
        while times and times[0] <= now - WINDOW:
            times.popleft()
        if len(times) >= self._untrusted_per_window:
            return True
        times.append(now)
        return False

    def opened(self) -> bool:
        """Count one more open connection; False, and not counted, at the limit."""
        if self._open >= self._open_at_once:
            return False
        self._open += 1
        return True

    def closed(self) -> None:
        self._open -= 1


def is_loopback(address: str) -> bool:
    """Whether ``address`` is a loopback IP address or "localhost"."""
    try:
        return ip_address(as_ipv4(address).partition("%")[0]).is_loopback
    except ValueError:
        return address == "localhost"


def as_ipv4(address: str) -> str:
    """Convert an IPv4-mapped IPv6 address to IPv4; other addresses are returned unchanged."""
    try:
        mapped = IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return address if mapped is None else str(mapped)
