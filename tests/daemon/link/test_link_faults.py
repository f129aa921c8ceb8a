"""Links that are killed, stopped or cut off, with messages in flight."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from daemon.link.certificates import Authority
from daemon.link.connections import break_all, count
from daemon.link.machine import Machine, connected, connected_stream, deliveries, introduce
from support.cut import CuttableWire
from support.queues import message, number_of
from support.waiting import let_last, wait_until

from dora_daemon.link.protocol.messages import Note, StreamCounts
from dora_daemon.link.streams.sender import MIN_WINDOW
from dora_node_api.data import arrow
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.layout import RecordKind

pytestmark = pytest.mark.integration

Make = Callable[..., Machine]
LOW_LATENCY = range(7500, 7550)
"""Ports of low-latency connections: the second half of the range."""


class Flow:
    """A producer on one machine that sends numbered messages to a consumer on another."""

    def __init__(
        self,
        a: Machine,
        b: Machine,
        *,
        policy: str = "backpressure",
        sizes: tuple[int, ...] = (20, 3_000, 100_000, 1_200_000),
    ) -> None:
        self.out = a.outgoing("n/o", "b", policy=policy, bound=8)
        self.into = b.incoming("n/o", "a", "m/i", policy=policy, bound=8)
        self._a, self._b = a, b
        self.sent = 0
        self.got: list[int] = []
        self._choose = partial(random.Random(7).choice, sizes)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        sender = self._a.sender(self.out)
        coming = deliveries(self._b.receiver(self.into), seconds=40)

        def send() -> None:
            while not self._stop.is_set():
                size = self._choose()
                sender.send("o", arrow.encode(message(self.sent, min(size, 1 << 20))))
                self.sent += 1
            self.out.keeper.announce_closed()

        def receive() -> None:
            for delivery in coming:
                if delivery.kind is RecordKind.CLOSED:
                    break
                self.got.append(number_of(delivery.data))

        self._run(send, receive)

    def _run(self, *targets: Callable[[], None]) -> None:
        for target in targets:
            thread = threading.Thread(target=target, daemon=True)
            thread.start()
            self._threads.append(thread)

    def progress(self, count: int = 30) -> None:
        """Wait until ``count`` more messages have arrived."""
        goal = len(self.got) + count
        wait_until(lambda: len(self.got) >= goal, what=lambda: f"{len(self.got)} of {goal}")

    def end(self) -> None:
        """Stop sending and wait until everything has arrived."""
        self._stop.set()
        for thread in self._threads:
            thread.join(40)
            assert not thread.is_alive()
        self._threads.clear()


def running_flow(make: Make, policy: str = "backpressure") -> tuple[Machine, Machine, Flow]:
    """Return machines "a" and "b" between which messages flow."""
    a, b = make("a"), make("b")
    flow = Flow(a, b, policy=policy)
    introduce(a, b)
    connected(a, b)
    flow.start()
    return a, b, flow


@pytest.mark.parametrize(("killed", "seed"), [("b", 20261124), ("a", 4711)])
def test_a_link_killed_at_random_loses_and_repeats_nothing(
    make: Make, killed: str, seed: int
) -> None:
    a, b, flow = running_flow(make)
    dice = random.Random(seed)
    victim, other = (a, b) if killed == "a" else (b, a)
    for _ in range(4):
        flow.progress(dice.randrange(1, 40))
        let_last(dice.random() * 0.02)
        victim.kill_link()
        victim.start_link()
        if killed == "a":
            other.meet(victim)
    flow.progress()
    flow.end()
    assert flow.got == list(range(flow.sent))
    assert b.count("n/o", "lost") == 0


@pytest.mark.parametrize("which", ["a", "b"])
def test_a_stopped_link_continues(make: Make, which: str) -> None:
    a, b, flow = running_flow(make)
    flow.progress()
    stopped, other = (a, b) if which == "a" else (b, a)
    assert stopped.process is not None
    os.kill(stopped.process.pid, signal.SIGSTOP)
    wait_until(lambda: other.state_of(which) == "lost", what="the other to notice")
    os.kill(stopped.process.pid, signal.SIGCONT)
    connected(a, b, timeout=60)
    flow.progress()
    flow.end()
    assert flow.got == list(range(flow.sent))


@pytest.mark.parametrize("seconds", [2, 15])
def test_a_wire_that_is_cut_loses_nothing_under_backpressure(make: Make, seconds: int) -> None:
    a, b = make("a"), make("b")
    flow = Flow(a, b)
    a.start_link()
    b.start_link()
    cable = CuttableWire(int(b.endpoints[0].rpartition(":")[2]))
    try:
        a.meet(b, endpoints=(f"127.0.0.1:{cable.port}",))
        b.meet(a, endpoints=("127.0.0.1:1",))
        connected(a, b)
        flow.start()
        flow.progress()
        cable.cut()
        let_last(seconds)
        cable.heal()
        flow.progress()
        flow.end()
    finally:
        cable.close()
    assert flow.got == list(range(flow.sent))


def test_a_broken_low_latency_connection_loses_and_repeats_nothing(make: Make) -> None:
    a, b = make("a"), make("b")
    flow = Flow(a, b, sizes=(20, 3_000))
    introduce(a, b)
    connected(a, b)
    assert a.process is not None
    link = a.process.pid
    flow.start()
    for _ in range(3):
        wait_until(lambda: count(link, LOW_LATENCY), what="the low-latency connection")
        flow.progress(100)
        assert break_all(link, LOW_LATENCY) == 1
        flow.progress()
    flow.end()
    assert flow.got == list(range(flow.sent))
    assert b.count("n/o", "lost") == 0


def test_few_ports_serve_ordinary_connections_only(make: Make) -> None:
    ports = (7430, 7438)  # links of other tests take the first of the default ports
    a, b = make("a", ports=ports), make("b", ports=ports)
    flow = Flow(a, b, sizes=(20,))
    introduce(a, b)
    connected(a, b)
    flow.start()
    flow.progress()
    flow.end()
    assert flow.got == list(range(flow.sent))
    assert a.process is not None
    assert count(a.process.pid, range(7430, 7439)) == 1


def test_links_whose_ports_were_taken_meanwhile_find_each_other(make: Make) -> None:
    """As after a boot without a coordinator, which would send the new addresses."""
    a, b, flow = running_flow(make, "backpressure")
    flow.progress()
    with ExitStack() as strangers:
        for machine in (a, b):
            machine.kill_link()
            host, _, port = machine.endpoints[0].rpartition(":")
            strangers.enter_context(socket.create_server((host, int(port))))
        a.meet(b)
        b.meet(a)
        for machine in (a, b):
            machine.start_link()
        flow.progress()
    flow.end()
    assert flow.got == list(range(flow.sent))


def test_drop_oldest_delivers_the_newest_after_a_kill(make: Make) -> None:
    _, b, flow = running_flow(make, "drop_oldest")
    flow.progress()
    b.kill_link()
    b.start_link()
    flow.progress()
    flow.end()
    assert flow.got == sorted(set(flow.got))
    assert flow.got[-1] == flow.sent - 1


class Requests(Flow):
    """Protected messages, as requests and responses are, between ordinary ones that may drop."""

    def __init__(self, a: Machine, b: Machine) -> None:
        super().__init__(a, b, policy="drop_oldest")

    def start(self) -> None:
        sender = self._a.sender(self.out)
        coming = deliveries(self._b.receiver(self.into), seconds=40)

        def send() -> None:
            while not self._stop.is_set():
                wait_until(
                    lambda: self._stop.is_set() or self.sent - len(self.got) < 20,
                    what=lambda: f"{self.sent}, not only {len(self.got)}",
                )
                size = min(self._choose(), 1 << 20)
                sender.send("o", arrow.encode(message(1_000_000 + self.sent, 300)))
                sender.send("o", arrow.encode(message(self.sent, size)), layout.FLAG_PROTECTED)
                self.sent += 1
            self.out.keeper.announce_closed()

        def receive() -> None:
            for delivery in coming:
                if delivery.kind is RecordKind.CLOSED:
                    break
                if delivery.flags & layout.FLAG_PROTECTED:
                    self.got.append(number_of(delivery.data))

        self._run(send, receive)


def test_requests_survive_kills_of_links(make: Make) -> None:
    a, b = make("a"), make("b")
    flow = Requests(a, b)
    introduce(a, b)
    connected(a, b)
    flow.start()
    dice = random.Random(12)
    machines = {"a": a, "b": b}
    for killed in ("b", "a", "ab") * 5:
        flow.progress(dice.randrange(1, 20))
        let_last(dice.random() * 0.02)
        for name in killed:
            machines[name].kill_link()
        for name in killed:
            machines[name].start_link()
        a.meet(b)
        b.meet(a)
    flow.progress()
    flow.end()
    assert flow.got == list(range(flow.sent))


def test_requests_survive_a_cut_wire(make: Make) -> None:
    a, b = make("a"), make("b")
    flow = Requests(a, b)
    a.start_link()
    b.start_link()
    cable = CuttableWire(int(b.endpoints[0].rpartition(":")[2]))
    try:
        a.meet(b, endpoints=(f"127.0.0.1:{cable.port}",))
        b.meet(a, endpoints=("127.0.0.1:1",))
        connected(a, b)
        flow.start()
        flow.progress()
        cable.cut()
        let_last(2)
        a.kill_link()  # while the wire is cut: what it has sent is unacknowledged
        cable.heal()
        a.start_link()
        a.meet(b, endpoints=(f"127.0.0.1:{cable.port}",))
        flow.progress()
        flow.end()
    finally:
        cable.close()
    assert flow.got == list(range(flow.sent))


def test_a_part_that_runs_anew_is_connected_again(make: Make) -> None:
    a, b, out, into = connected_stream(make, policy="backpressure")
    sender, coming = a.sender(out), deliveries(b.receiver(into))
    for number in range(5):
        sender.send("o", arrow.encode(message(number, 100)))
        assert number_of(next(coming).data) == number
    a.kill_link()
    a.registry.drop(out.edge)
    a._outgoing.clear()
    a.run_id = "a-2"
    again = a.outgoing("n/o", "b", policy="backpressure")
    a.start_link()
    a.meet(b)
    b.meet(a)
    sender = a.sender(again)
    sender.send("o", arrow.encode(message(77, 100)))
    assert next(coming).kind is RecordKind.NODE_RESTARTED
    assert number_of(next(coming).data) == 77
    wait_until(lambda: b.events() == [("n/o", "restarted")], what="the event")


def test_waiting_messages_of_an_ended_run_acknowledge_none_of_the_next(make: Make) -> None:
    a, b, out, into = connected_stream(make, policy="backpressure", bound=5)
    sender, coming = a.sender(out), deliveries(b.receiver(into))
    for number in range(300):
        sender.send("o", arrow.encode(message(number, 100)))
        assert number_of(next(coming).data) == number
    for number in range(5 + MIN_WINDOW):
        sender.send("o", arrow.encode(message(number, 100)))
    wait_until(lambda: waiting(b) == MIN_WINDOW, what="messages to wait on b")
    a.kill_link()
    a.registry.drop(out.edge)
    a._outgoing.clear()
    a.run_id = "a-2"
    again = a.outgoing("n/o", "b", policy="backpressure", bound=5)
    a.start_link()
    a.meet(b)
    b.meet(a)
    sender = a.sender(again)
    sent = [0]

    def send() -> None:
        for number in range(500):
            sender.send("o", arrow.encode(message(number, 100)))
            sent[0] = number + 1

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    wait_until(lambda: sent[0] == MIN_WINDOW + 5, what=lambda: f"the window, not {sent[0]}")
    for number in range(5 + MIN_WINDOW):
        assert number_of(next(coming).data) == number
    assert next(coming).kind is RecordKind.NODE_RESTARTED
    # Their numbers exceed those of the new messages, which must wait for room nevertheless.
    for read in range(3):
        wait_until(
            lambda: sent[0] - read == 5 + MIN_WINDOW + 5,  # noqa: B023
            what=lambda: f"{sent[0]} not to be sent",
        )
        assert number_of(next(coming).data) == read
    for number in range(3, 500):
        assert number_of(next(coming).data) == number
    thread.join()


def waiting(machine: Machine) -> int:
    """Return how many messages wait for local queues in the last report."""
    counts = [m for m in machine.received if isinstance(m, StreamCounts)]
    return counts[-1].streams[-1].waiting if counts else 0


def test_renewed_certificates_are_used_without_a_restart(
    make: Make, authority: Authority, home: Path
) -> None:
    a, b, flow = running_flow(make)
    flow.progress()
    # A new authority: only links that read their files again can connect.
    renewed = Authority("renewed")
    for name in ("a", "b"):
        new = renewed.sign(home / f"new-{name}", name)
        for file in ("ca.pem", "key.pem", "cert.pem"):
            shutil.copyfile(new / file, home / f"credentials-{name}" / file)
    before = len(a.received), len(b.received)
    wait_until(
        lambda: len(a.received) > before[0] and len(b.received) > before[1], what="both to notice"
    )
    connected(a, b, timeout=60)
    flow.progress()
    flow.end()
    assert flow.got == list(range(flow.sent))
    assert not [m for m in a.received if isinstance(m, Note) and m.level == "error"]


def test_a_link_whose_runner_dies_acknowledges_nothing_that_it_has_not_stored(make: Make) -> None:
    """Messages that wait for room are lost with the link; the next part must receive them."""
    a, b, out, into = connected_stream(make, policy="backpressure", bound=8)
    sender = a.sender(out)
    for number in range(8 + 20):
        sender.send("o", arrow.encode(message(number, 20)))
    here = b.registry.board.edge_words(into.spec.area)
    there = a.registry.board.edge_words(out.spec.area)
    wait_until(lambda: there[layout.C_ACKNOWLEDGED] == 8, what="acknowledgements")
    wait_until(lambda: out.ends.depth() == 0, what="all to be on their way")
    assert b.process is not None
    b.disconnect()
    b.process.wait(20)
    wait_until(lambda: a.state_of("b") == "lost", what="the loss")
    assert here[layout.P_SOURCE] == 8
    assert there[layout.C_ACKNOWLEDGED] == 8
