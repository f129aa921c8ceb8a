"""Limits of connections and of failed authentications by address or network; pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address

WINDOW = 60.0
"""Seconds for which a failed authentication counts."""

MAX_ADDRESSES = 10_000
"""Addresses and networks remembered at once; the least recent one is forgotten."""


class AttemptVerdict(Enum):
    """Reaction to a failed authentication."""

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

    def failed(self, address: str, now: float) -> AttemptVerdict:
        """Count a connection without a valid token; loopback is never blocked.

        A valid token is accepted from a blocked address too: others may share it.
        """
        if is_loopback(address):
            return AttemptVerdict.REPORTED
        client = network(address)
        times = self._recent.setdefault(client, deque())
        self._recent.move_to_end(client)
        if len(self._recent) > MAX_ADDRESSES:
            self._recent.popitem(last=False)
        while times and times[0] <= now - WINDOW:
            times.popleft()
        if len(times) >= self._untrusted_per_window:
            return AttemptVerdict.BLOCKED
        times.append(now)
        return (
            AttemptVerdict.LAST
            if len(times) == self._untrusted_per_window
            else AttemptVerdict.REPORTED
        )

    def opened(self) -> bool:
        """Count another open connection; at the limit, return False without counting it."""
        if self._open >= self._open_at_once:
            return False
        self._open += 1
        return True

    def closed(self) -> None:
        self._open -= 1


@dataclass(eq=False, slots=True)
class PendingConnection:
    """A connection whose client has not shown a valid token yet."""

    source: str
    """Address or network of the client; on this machine, its account."""
    drop: Callable[[], None]
    """Closes the connection."""
    _all: PendingConnections

    def ended(self) -> None:
        """Stop counting the connection; may be called twice."""
        self._all.remove(self)

    def accepted(self) -> None:
        """Stop counting the connection, and prefer its source from now on."""
        self._all.remove(self)
        self._all.trust(self.source)


@dataclass(slots=True)
class PendingConnections:
    """Bounds pending connections, in all and for each source, by dropping the oldest.

    A client that sends its request at once is served while others hold silent connections, also
    from its own address. Sources that showed a valid token are the last to lose connections.
    """

    total: int
    """Most pending connections; one source may have a quarter of them."""
    _by_source: dict[str, dict[PendingConnection, None]] = field(default_factory=dict)
    _trusted: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _count: int = 0

    def add(
        self, source: str, drop: Callable[[], None]
    ) -> tuple[PendingConnection, PendingConnection | None]:
        """Count a new connection; return it, and the one that must be dropped for it."""
        connection = PendingConnection(source, drop, self)
        own = self._by_source.setdefault(source, {})
        own[connection] = None
        self._count += 1
        if len(own) > max(1, self.total // 4):
            crowded = own
        elif self._count > self.total:
            _, crowded = max(
                self._by_source.items(),
                key=lambda item: (item[0] not in self._trusted, len(item[1])),
            )
        else:
            return connection, None
        oldest = next(iter(crowded))
        self.remove(oldest)
        return connection, oldest

    def remove(self, connection: PendingConnection) -> None:
        own = self._by_source.get(connection.source, {})
        if connection in own:
            del own[connection]
            self._count -= 1
            if not own:
                del self._by_source[connection.source]

    def trust(self, source: str) -> None:
        self._trusted[source] = None
        self._trusted.move_to_end(source)
        if len(self._trusted) > MAX_ADDRESSES:
            self._trusted.popitem(last=False)


@lru_cache(MAX_ADDRESSES)
def is_loopback(address: str) -> bool:
    """Whether ``address`` is a loopback IP address or "localhost"."""
    try:
        return ip_address(as_ipv4(address).partition("%")[0]).is_loopback
    except ValueError:
        return address == "localhost"


@lru_cache(MAX_ADDRESSES)
def network(address: str) -> str:
    """Return an address; of a global IPv6 address its /64 network, as one client may use it all."""
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return address
    return address if parsed.is_link_local else str(IPv6Network((parsed, 64), strict=False))


@lru_cache(MAX_ADDRESSES)
def as_ipv4(address: str) -> str:
    """Convert an IPv4-mapped IPv6 address to IPv4; other addresses are returned unchanged."""
    try:
        mapped = IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return address if mapped is None else str(mapped)
