"""Small messages beside large ones, over a slow cable between two namespaces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from daemon.link.machine import Machine, connected, deliveries, introduce
from support.fleets.slow_cable import SlowCable, require_slow_cable, slow_cable
from support.waiting import wait_until

from dora_node_api.data import arrow

pytestmark = pytest.mark.integration

Make = Callable[..., Machine]
MBIT = 125_000
BOUNDS = {"joints/state": 50, "camera/image": 1}


class Edges:
    """An edge of small messages and one of pictures from the same machine to the other."""

    def __init__(self, make: Make, wire: SlowCable, origin: str, size: int) -> None:
        """``size``: of a picture, in bytes."""
        self._size = size
        ends = {
            name: make(name, host=address, prefix=wire.prefix(name))
            for name, address in wire.addresses.items()
        }
        self._from = ends.pop(origin)
        ((target, self._to),) = ends.items()
        self._out = {
            source: self._from.outgoing(source, target, bound=bound)
            for source, bound in BOUNDS.items()
        }
        self._into = {
            source: self._to.incoming(source, origin, f"plot/{source[:5]}", bound=bound)
            for source, bound in BOUNDS.items()
        }
        self._ages: dict[str, list[float]] = {source: [] for source in BOUNDS}
        self._sends_pictures = threading.Event()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_state),
            threading.Thread(target=self._send_pictures),
            *(threading.Thread(target=self._receive, args=(source,)) for source in BOUNDS),
        ]

    def __enter__(self) -> Edges:
        introduce(self._from, self._to)
        connected(self._from, self._to)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._sends_pictures.set()
        for thread in self._threads:
            thread.join(20)

    def _send_state(self) -> None:
        sender = self._from.sender(self._out["joints/state"])
        while not self._stop.wait(0.01):
            sender.send("state", arrow.encode(pa.array([0.0] * 6), {"at": time.monotonic()}))

    def _send_pictures(self) -> None:
        sender = self._from.sender(self._out["camera/image"])
        picture = pa.array(np.zeros(self._size, np.uint8))
        self._sends_pictures.wait()
        while not self._stop.wait(0.1):
            sender.send("image", arrow.encode(picture, {"at": time.monotonic()}))

    def _receive(self, source: str) -> None:
        receiver = self._to.receiver(self._into[source])
        while not self._stop.is_set():
            for delivery in deliveries(receiver, seconds=0.2):
                self._ages[source].append(time.monotonic() - float(delivery.metadata["at"]))
                if self._stop.is_set():
                    break

    def ages(self, count: int) -> list[float]:
        """Return the ages in seconds of the next small messages when they arrive, sorted."""
        ages = self._ages["joints/state"]
        begin = len(ages)
        wait_until(lambda: len(ages) >= begin + count, what="small messages")
        return sorted(ages[begin : begin + count])

    def send_pictures(self) -> None:
        """Fill the cable with pictures from now on; return when the first has arrived."""
        self._sends_pictures.set()
        wait_until(lambda: self._ages["camera/image"], what="a picture")


@pytest.mark.parametrize(
    ("origin", "size", "loss"),
    [("robot", 8 << 20, 0.0), ("station", 8 << 20, 0.0), ("robot", 320 * 240 * 3, 0.02)],
)
def test_small_messages_do_not_wait_for_pictures(
    make: Make, origin: str, size: int, loss: float
) -> None:
    """TCP alone fills the queue before the cable, which holds 0.8 s of it."""
    require_slow_cable()
    with slow_cable(
        "robot", "station", delay=0.05, loss=loss, rate=20 * MBIT, queue=16 * MBIT
    ) as wire:
        for name in wire.addresses:
            wire.run(name, "sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno")
        with Edges(make, wire, origin, size) as edges:
            alone = edges.ages(200)
            edges.send_pictures()
            beside = edges.ages(400)
    assert beside[360] < 3 * alone[180], (
        f"{beside[360]:.3f} s beside pictures, {alone[180]:.3f} alone"
    )
