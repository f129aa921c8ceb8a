"""Two network namespaces with a cable between them that delays packets, drops some, and has a rate.

Like netem, without its kernel module: each end is a TUN device, and a thread forwards packets.
Needs root on Linux.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from support.fleets.cables import Networks, network, require_networks
from support.requirements import require_installed

_TUN = "/dev/net/tun"
_SET_NAME = 0x400454CA
_TUN_WITHOUT_HEADER = 0x1001
_MAX_PACKET = 65536


def require_slow_cable() -> None:
    """Require what a slow cable needs."""
    require_networks()
    require_installed(_TUN)


class SlowCable(Networks):
    """Connects two machines, at 10.78.0.1 and 10.78.0.2."""

    def __init__(
        self,
        holders: dict[str, int],
        *,
        delay: float,
        loss: float,
        rate: float,
        queue: int,
        choice: random.Random,
    ) -> None:
        """``delay``: seconds of each packet; ``loss``: share of dropped packets; ``rate``: bytes in
        a second, of each direction; ``queue``: bytes that wait for it at most."""
        super().__init__(holders)
        self.delay = delay
        self.loss = loss
        self.rate = rate
        self.queue = queue
        self._choice = choice
        self._free = [0.0, 0.0]
        """When each direction has passed on what waits."""
        self.addresses = {name: f"10.78.0.{n}" for n, name in enumerate(holders, start=1)}
        self._ends = [self._end(name) for name in holders]
        self._wake, self._awake = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="slow cable")
        self._thread.start()

    def _end(self, name: str) -> int:
        with self.at(name):
            tun = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(tun, _SET_NAME, struct.pack("16sH", b"eth0", _TUN_WITHOUT_HEADER))
        self.ip(name, "link", "set", "lo", "up")
        self.ip(name, "address", "add", f"{self.addresses[name]}/24", "dev", "eth0")
        self.ip(name, "link", "set", "eth0", "up")
        return tun

    def _carry(self) -> None:
        first, second = self._ends
        other = {first: second, second: first}
        waiting: list[tuple[float, int, int, bytes]] = []
        number = itertools.count()
        while True:
            pause = waiting[0][0] - time.monotonic() if waiting else None
            ready, _, _ = select.select([*self._ends, self._wake], [], [], pause and max(0, pause))
            if self._wake in ready:
                return
            for end in ready:
                packet = os.read(end, _MAX_PACKET)
                due = self._passed(self._ends.index(end), len(packet))
                if due is not None and self._choice.random() >= self.loss:
                    heapq.heappush(waiting, (due + self.delay, next(number), other[end], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(waiting)
                os.write(to, packet)

    def _passed(self, direction: int, size: int) -> float | None:
        """Return when the rate has let a packet pass; None if the queue is full."""
        now = time.monotonic()
        begins = max(now, self._free[direction])
        if (begins - now) * self.rate > self.queue:
            return None
        self._free[direction] = begins + size / self.rate
        return self._free[direction]

    def close(self) -> None:
        os.write(self._awake, b"x")
        self._thread.join()
        for descriptor in (*self._ends, self._wake, self._awake):
            os.close(descriptor)


@contextmanager
def slow_cable(
    first: str,
    second: str,
    *,
    delay: float,
    loss: float,
    rate: float = 1e9,
    queue: int = 1 << 20,
    seed: int = 0,
) -> Iterator[SlowCable]:
    """``delay``: one way, in seconds; ``loss``: from 0 to 1, in each direction; ``rate``: bytes in
    a second, of each direction; ``queue``: bytes that wait for it at most."""
    with ExitStack() as stack:
        holders = {name: stack.enter_context(network()) for name in (first, second)}
        choice = random.Random(seed)
        cable = SlowCable(holders, delay=delay, loss=loss, rate=rate, queue=queue, choice=choice)
        stack.callback(cable.close)
        yield cable
