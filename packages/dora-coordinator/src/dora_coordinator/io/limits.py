"""How many connections, and how fast from one address; pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from ipaddress import IPv6Address, ip_address

WINDOW = 60.0
"""Seconds."""

MAX_ADDRESSES = 10_000
"""Addresses remembered at once; the longest quiet one is forgotten."""


class ConnectionLimits:
    """Counts connections of peers that have not shown a token, and open ones of all."""

    def __init__(self, *, open_at_once: int, untrusted_per_window: int) -> None:
        self._open_at_once = open_at_once
        self._untrusted_per_window = untrusted_per_window
        self._open = 0
        self._recent: OrderedDict[str, deque[float]] = OrderedDict()

    def too_fast(self, address: str, now: float) -> bool:
        """Note an untrusted connection of ``address``; whether it was one too many."""
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
        """Count one more open connection; False (and not counted) when there are too many."""
        if self._open >= self._open_at_once:
            return False
        self._open += 1
        return True

    def closed(self) -> None:
        self._open -= 1


def is_loopback(address: str) -> bool:
    """Whether ``address`` is an IP address of this very machine only; a host name is not."""
    try:
        return ip_address(as_ipv4(address).partition("%")[0]).is_loopback
    except ValueError:
        return address == "localhost"


def as_ipv4(address: str) -> str:
    """An IPv4 address as such that is seen through a socket of both families; any other as it
    is.
    """
    try:
        mapped = IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return address if mapped is None else str(mapped)
