"""Limit of the bytes of large messages in flight, which fills the path but not its queues.

A network accepts more than it carries. The rest fills the queue before its slowest hop, and delays
all other messages between the two machines, also those of other connections. The round trips that
TCP measures grow with that queue. The limit shrinks until they are almost as short as those of an
empty path, and grows again while they stay short. TCP alone would fill the queue. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

INITIAL_LIMIT: Final = 64 * 1024
"""First limit of the bytes in flight."""
MIN_LIMIT: Final = 6 * 1024
"""Lowest limit of the bytes in flight."""
MAX_LIMIT: Final = 64 << 20
"""Highest limit of the bytes in flight."""
PIECE: Final = 2 * 1448
"""Bytes of the smallest piece: two packets."""
_MIN_QUEUED: Final = 2 * PIECE
"""Bytes that may always wait in queues."""
_FAST_RATE: Final = 150_000_000
"""Bytes per second above which the limit does not apply: the processor limits such paths, and
busy processors make round trips longer. A cable of 1 Gbit/s carries less."""
_MIN_RATE: Final = 50_000
"""Lowest measured rate in bytes per second, also of a path that carries nothing."""
_PIECE_NS: Final = 2_000_000
"""Time that the path needs for one piece."""
_AHEAD_NS: Final = 10_000_000
"""Time that the path needs for what TCP has not sent yet."""
_ROUND_NS: Final = 5_000_000
"""Shortest time between two decisions; with longer round trips, one of them."""
_QUEUE_NS: Final = 3_000_000
"""Time that a packet may wait in queues."""
_EPOCH_NS: Final = 5_000_000_000
"""Time after which the shortest round trip is measured again: routes and radio links change."""
_PAUSE_NS: Final = (300_000, 3_000_000)
"""Shortest and longest time until the connection is read again."""


class TcpState(NamedTuple):
    """State of one connection, as the kernel reports it."""

    arrived: int
    """Bytes that have arrived since the connection began, also behind a lost packet."""
    flying: int
    """Bytes in the network."""
    unsent: int
    """Bytes that wait in the kernel."""
    written: int
    """Bytes that were written to the connection since it began."""
    rtt_ns: int
    """Mean of the last round trips."""


class PathQueue:
    """Limit of one connection. Times are nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self.limit = INITIAL_LIMIT
        """Limit of the bytes in flight now."""
        self._rate = 0
        """Bytes per second that arrived during the last round; 0: not known yet."""
        self._fastest = self._next_fastest = 0
        """The most in a round of this epoch and the one before."""
        self._starts = True
        """Whether no queue was seen yet."""
        self._target = 0
        """Value that `TcpState.written` has once the last piece is written."""
        self._next_ns = 0
        """Earliest time of the next piece: pieces do not come in bursts."""
        self._base = 0
        """Shortest mean round trip of this epoch and the one before."""
        self._next_base = 0
        self._epoch_ns = 0
        self._drains = 0
        """Rounds that empty the queue, so that the shortest round trip is seen."""
        self._begin_ns = 0
        self._begin_bytes = 0
        self._seen_ns = 0
        self._shortest = 0
        self._most = 0
        self._limited = False

    def piece(self) -> int:
        """Return the bytes of the next piece."""
        return (
            max(PIECE, self._rate * _PIECE_NS // 1_000_000_000)
            if self._rate
            else INITIAL_LIMIT // 4
        )

    def put(self, state: TcpState, nbytes: int, now: int) -> None:
        """Note a piece, which will be written to the connection."""
        self._target = max(self._target, state.written) + nbytes
        if not self._starts:
            self._next_ns = now + nbytes * 1_000_000_000 // (self._fastest * 5 // 4)

    def pause(self, state: TcpState, now: int) -> int:
        """Return the nanoseconds until the next call; 0: another piece may be sent."""
        waiting = state.unsent + max(0, self._target - state.written)
        on_the_way = state.flying + waiting
        self._follow(state, on_the_way, now)
        if self._fastest > _FAST_RATE:
            return 0
        limit = self.limit // 2 if self._drains else self.limit
        ahead = max(MIN_LIMIT, self._fastest * _AHEAD_NS // 1_000_000_000)
        if not self._rate:
            ahead = INITIAL_LIMIT
        if now < self._next_ns:
            return self._next_ns - now
        too_many = on_the_way - limit
        if too_many >= 0:
            self._limited = True
        elif waiting < ahead:
            return 0
        shortest, longest = _PAUSE_NS
        if not self._rate:
            return shortest
        nbytes = max(too_many, waiting - ahead) + PIECE // 2
        return min(longest, max(shortest, nbytes * 1_000_000_000 // self._rate))

    def _follow(self, state: TcpState, on_the_way: int, now: int) -> None:
        """Note a round trip; decide at the end of a round."""
        length = max(_ROUND_NS, state.rtt_ns)
        if not self._base:
            self._base = self._next_base = state.rtt_ns
            self._epoch_ns = now
        if now - self._seen_ns > 2 * length:
            # Nothing was sent for a while: the last round trips are out of date.
            self._begin(state, now)
        self._seen_ns = now
        self._shortest = min(self._shortest, state.rtt_ns)
        self._most = max(self._most, min(on_the_way, self.limit))
        took = now - self._begin_ns
        if took < length or state.arrived == self._begin_bytes:
            return
        if took > 4 * length:
            # The pause would make the rate too low.
            self._begin(state, now)
            return
        self._next_base = min(self._next_base, self._shortest)
        self._base = min(self._base, self._next_base)
        rate = max(_MIN_RATE, (state.arrived - self._begin_bytes) * 1_000_000_000 // took)
        if self._limited or rate > self._rate:
            self._rate = rate
        self._next_fastest = max(self._next_fastest, rate)
        self._fastest = max(self._fastest, rate)
        # Later round trips show what the first bytes of a faster round have done.
        self._decide(state.rtt_ns if self._starts else self._shortest)
        self._begin(state, now)

    def _begin(self, state: TcpState, now: int) -> None:
        self._begin_ns, self._begin_bytes = now, state.arrived
        self._seen_ns, self._shortest = now, state.rtt_ns
        self._most, self._limited = 0, False
        if now - self._epoch_ns > _EPOCH_NS:
            self._epoch_ns = now
            self._base, self._next_base = self._next_base, state.rtt_ns
            self._fastest = max(self._next_fastest, self._rate)
            self._next_fastest = 0
            self._drains = 0 if self._starts else 2

    def _decide(self, round_trip: int) -> None:
        if self._drains:
            self._drains -= 1
            return
        few_packets = _MIN_QUEUED * 1_000_000_000 // self._fastest
        allowed = self._base + max(_QUEUE_NS, self._base // 16, few_packets)
        if round_trip > allowed:
            # Keep 3/4 of what fills an empty path: other traffic may cause the longer round trips.
            least = self._fastest * self._base * 3 // 4_000_000_000
            fewer = self._most * max(allowed, round_trip // 2) // round_trip
            self.limit = max(MIN_LIMIT, least, fewer)
            self._starts = False
        elif self._limited:
            more = 2.0 if self._starts else min(1.25, allowed / round_trip)
            self.limit = min(MAX_LIMIT, int(self.limit * more))
