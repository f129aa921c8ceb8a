"""Limits of open connections and of failed authentications by address or network; pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum, auto
from ipaddress import IPv6Address, IPv6Network, ip_address

WINDOW = 60.0
"""Seconds."""

MAX_ADDRESSES = 10_000
"""Addresses and networks remembered at once; the least recent one is forgotten."""


class Failure(Enum):
    """What to do about a failed authentication."""

    REPORTED = auto()
    LAST = auto()
    """Report it, and that further ones are blocked."""
    BLOCKED = auto()


class ConnectionLimits:
    """Counts all open connections, and recent failed authentications by address."""

    def __init__(self, *, open_at_once: int, untrusted_per_window: int) -> None:
        self._open_at_once = open_at_once
        self._untrusted_per_window = untrusted_per_window
        self._open = 0
        self._recent: OrderedDict[str, deque[float]] = OrderedDict()

    def failed(self, address: str, now: float) -> Failure:
        """Count a connection without a valid token; loopback is never blocked.

        A valid token is accepted from a blocked address too: others may share it.
        """
        if is_loopback(address):
            return Failure.REPORTED
        client = _network(address)
        times = self._recent.setdefault(client, deque())
        self._recent.move_to_end(client)
        if len(self._recent) > MAX_ADDRESSES:
            self._recent.popitem(last=False)
        while times and times[0] <= now - WINDOW:
            times.popleft()
        if len(times) >= self._untrusted_per_window:
            return Failure.BLOCKED
        times.append(now)
        return Failure.LAST if len(times) == self._untrusted_per_window else Failure.REPORTED

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


def _network(address: str) -> str:
    """Return the /64 network of a global IPv6 address: one client may use all of it."""
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return address
    return address if parsed.is_link_local else str(IPv6Network((parsed, 64), strict=False))


def as_ipv4(address: str) -> str:
    """Convert an IPv4-mapped IPv6 address to IPv4; other addresses are returned unchanged."""
    try:
        mapped = IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return address if mapped is None else str(mapped)
