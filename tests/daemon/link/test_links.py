"""Two real link processes over TLS on loopback: what goes through, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon.link.certificates import Authority
from daemon.link.machine import Machine, deliveries, introduce, proven
from support.queues import message, number_of

from dora_node_api import arrow

pytestmark = pytest.mark.integration

Make = Callable[..., Machine]


@pytest.fixture
def make(home: Path) -> Iterator[Make]:
    """Machines by name, with certificates of one authority."""
    authority = Authority()
    machines: list[Machine] = []

    def make(name: str, **settings: object) -> Machine:
        folder = authority.sign(home / f"credentials-{name}", name)
        machine = Machine(name, home, credentials=folder, **settings)  # type: ignore[arg-type]
        machines.append(machine)
        return machine

    yield make
    for machine in machines:
        machine.close()


def test_messages_go_through_in_order(make: Make) -> None:
    a, b = make("a"), make("b")
    out = a.outgoing("camera/image", "b", policy="backpressure")
    into = b.incoming("camera/image", "a", "plot/picture", policy="backpressure")
    introduce(a, b)
    proven(a, b)
    sender, receiver = a.sender(out), b.receiver(into)
    coming = deliveries(receiver)
    for number in range(200):
        sender.send("image", arrow.encode(message(number, 100), {"number": number}))
        delivery = next(coming)
        assert number_of(delivery.data) == number
        assert delivery.metadata["number"] == number
