"""Hundreds of random faults over several producers and consumers.

Each round kills, stops, interrupts, blocks or forks a process at a time drawn from a seed. Every
received byte is checked; at the end all processes exit by themselves, the counters balance and all
memory is free. Set DORA_STORM_SEED to repeat one run.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import pytest
from support.queues import Edge, Registry, message, number_of
from support.waiting import PATIENCE, wait_until

from dora_node_api.data import arrow
from dora_node_api.errors import NodeForked
from dora_node_api.transport.consumer.delivery import Delivery
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.consumer.waiting import Waiter
from dora_node_api.transport.producer.pool import Pool
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.layout import FLAG_PROTECTED, RecordKind

SEEDS = [int(os.environ["DORA_STORM_SEED"])] if "DORA_STORM_SEED" in os.environ else [1, 2, 3]
ROUNDS = 120
CAP = 24 << 20
SIZES = (24, 24, 100, 1000, 5000, 70_000, 400_000)
RUN, QUIET = 1, 2
INTERRUPTED = 75
"""Exit code of a process in which a signal handler raised."""


class Interrupted(Exception):
    """Raised by the signal handler of a process in the storm."""


armed = False


def _interrupt(*_: object) -> None:
    if armed:
        raise Interrupted


def _hold_gil(*_: object) -> None:
    ctypes.PyDLL(None).usleep(100_000)


def guarded(step: Callable[[], None]) -> None:
    """Run a step in which the handler may raise, which makes the ends unusable."""
    global armed
    try:
        armed = True
        step()
        armed = False
    except Interrupted:
        os._exit(INTERRUPTED)


def produce(edges: list[Edge], incarnation: int, phase: mmap.mmap, seed: int) -> None:
    """Send numbered messages until the phase QUIET, then check that all memory is freed."""
    chance = random.Random(seed)
    pool = Pool(CAP, edges[0].segments.register(incarnation))
    sender = Sender(pool, edges[0].board, incarnation)
    for edge in edges:
        sender.add_route("out", edge.spec, edge.for_producer())
    number = incarnation << 32

    def send() -> None:
        data = arrow.encode(message(number, chance.choice(SIZES)))
        sender.send("out", data, FLAG_PROTECTED if chance.random() < 0.05 else 0)

    while phase[0] == RUN:
        guarded(send)
        number += 1
        if chance.random() < 0.1:
            time.sleep(chance.random() * 0.002)
    # The last message raises the floors of a consumer that has just been started.
    for flags in (FLAG_PROTECTED, 0):
        sender.send("out", arrow.encode(message(number, 24)), flags)
        number += 1
    deadline = time.monotonic() + PATIENCE
    while sender.held_bytes():
        if time.monotonic() > deadline:
            os.write(2, f"held by {incarnation}: {sender.held_bytes()}\n".encode())
            os._exit(71)
        time.sleep(0.005)
    os._exit(0)


def consume(edges: list[Edge], phase: mmap.mmap, seed: int) -> None:
    """Check every message, keep some for a while, end when every input is closed."""
    chance = random.Random(seed)
    receivers = [edge.receiver() for edge in edges]
    waiter = Waiter()
    for receiver in receivers:
        waiter.add(receiver)
    last = dict.fromkeys(range(len(edges)), -1)
    closed: set[int] = set()
    kept: list[Delivery] = []

    def take(index: int) -> None:
        delivery = receivers[index].receive()
        if delivery is None:
            return
        if delivery.kind is RecordKind.CLOSED:
            closed.add(index)
        elif delivery.kind is RecordKind.DATA:
            number = number_of(delivery.data)
            assert number > last[index], (number, last[index])
            last[index] = number
            if chance.random() < 0.2:
                kept.append(delivery)

    def turn() -> None:
        for found in waiter.wait(0.05):
            assert isinstance(found, Receiver)
            take(receivers.index(found))

    while len(closed) < len(edges):
        guarded(turn)
        if forks:
            forks.clear()
            _fork_and_touch(receivers[0], kept)
        if len(kept) > 40 or phase[0] != RUN:
            assert all(number_of(delivery.data) >= 0 for delivery in kept)  # unchanged
            kept.clear()
        if phase[0] != RUN:
            for receiver in receivers:
                receiver._account.release_lost()
    os._exit(0)


forks: list[int] = []


def _fork_and_touch(receiver: Receiver, kept: list[Delivery]) -> None:
    """A forked child cannot use the receiver, and freeing its arrays releases nothing."""
    pid = os.fork()
    if pid == 0:
        try:
            receiver.receive()
        except NodeForked:
            kept.clear()
            os._exit(0)
        os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert status == 0


@dataclass
class Process:
    """One node of the storm, restarted whenever it was killed or interrupted."""

    name: str
    produces: list[Edge] = field(default_factory=list)
    consumes: list[Edge] = field(default_factory=list)
    pid: int = 0
    starts: int = 0

    def start(self, incarnation: int, phase: mmap.mmap, seed: int) -> None:
        self.starts += 1
        # A signal that comes before the child has its handlers would end it.
        signals = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        self.pid = os.fork()
        if self.pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            return
        try:
            signal.signal(signal.SIGUSR1, _interrupt)
            signal.signal(signal.SIGUSR2, _hold_gil)
            signal.signal(signal.SIGHUP, lambda *_: forks.append(1))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            if self.produces:
                produce(self.produces, incarnation, phase, seed)
            else:
                consume(self.consumes, phase, seed)
        except BaseException:  # noqa: BLE001 (the edge of a process)
            import traceback

            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(70)


class Storm:
    """Plays the runner: starts, kills and reaps processes and announces their ends."""

    def __init__(self, seed: int, board: Board, registry: Registry) -> None:
        self.chance = random.Random(seed)
        self.phase = mmap.mmap(-1, 4096)
        self.phase[0] = RUN
        self.incarnation = 0
        plan = [
            ("a", "x", "drop_oldest", 5),
            ("a", "y", "backpressure", 4),
            ("b", "x", "drop_oldest", 1),
            ("b", "z", "drop_oldest", 50),
            ("c", "z", "backpressure", 20),
        ]
        self.edges = [
            Edge(board, registry, bound=bound, policy=policy, queue=queue, names=(source, target),
                 hold_limit=CAP // 8)
            for queue, (source, target, policy, bound) in enumerate(plan, 1)
        ]  # fmt: skip
        names = {"a", "b", "c"}
        self.processes = [
            Process(name, [e for e in self.edges if e.spec.producer == name])
            for name in sorted(names)
        ] + [
            Process(name, [], [e for e in self.edges if e.spec.consumer == name]) for name in "xyz"
        ]

    def start(self, process: Process) -> None:
        self.incarnation += 1
        process.start(self.incarnation, self.phase, self.chance.getrandbits(32))

    def kill(self, process: Process) -> None:
        os.kill(process.pid, signal.SIGKILL)
        _, status = os.waitpid(process.pid, 0)
        exited = os.WIFEXITED(status) and os.WEXITSTATUS(status) == INTERRUPTED
        assert os.WIFSIGNALED(status) or exited, f"{process.name} ended by itself: {status}"
        self.restart(process)

    def restart(self, process: Process) -> None:
        for edge in process.produces:
            edge.keeper.announce_restarted()
        for edge in process.consumes:
            edge.keeper.consumer_died()
        self.start(process)

    def round(self) -> None:
        process = self.chance.choice(self.processes)
        action = self.chance.choice(["kill", "kill", "stop", "raise", "raise", "gil", "fork"])
        if action == "kill":
            self.kill(process)
        elif action == "stop":
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(self.chance.random() * 0.02)
            os.kill(process.pid, signal.SIGCONT)
        elif action == "raise":
            for _ in range(5):
                os.kill(process.pid, signal.SIGUSR1)
                time.sleep(self.chance.random() * 0.002)
            self.reap(process)
        elif action == "gil":
            os.kill(process.pid, signal.SIGUSR2)
        elif process.consumes:
            os.kill(process.pid, signal.SIGHUP)
        time.sleep(self.chance.random() * 0.02)

    def reap(self, process: Process) -> None:
        """Note that a process has exited; restart it if it was interrupted."""
        if not process.pid:
            return
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        if pid and os.WIFEXITED(status) and os.WEXITSTATUS(status) == INTERRUPTED:
            self.restart(process)
        elif pid:
            process.pid = 0
            assert status == 0, f"{process.name} ended with {status}"

    def ended(self, waited: list[Process]) -> bool:
        for process in self.processes:
            self.reap(process)
        return not any(process.pid for process in waited)

    def finish(self) -> None:
        self.phase[0] = QUIET
        producers = [process for process in self.processes if process.produces]
        wait_until(partial(self.ended, producers), what="the end of the producers")
        for edge in self.edges:
            edge.keeper.announce_closed()
        wait_until(partial(self.ended, self.processes), what="the end of the consumers")

    def clear(self) -> None:
        for process in self.processes:
            if process.pid:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                    os.waitpid(process.pid, 0)
        for edge in self.edges:
            edge.keeper.consumer_died()
            edge.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_storm(seed: int) -> None:
    registry = Registry()
    board = Board.create(4 << 20)
    storm = Storm(seed, board, registry)
    try:
        for process in storm.processes:
            storm.start(process)
        for _ in range(ROUNDS):
            storm.round()
        storm.finish()
        starts = {process.name: process.starts for process in storm.processes}
        for edge in storm.edges:
            seen = edge.keeper.statistics()
            assert seen.queued == 0
            assert seen.sent == seen.received + seen.dropped
            assert seen.received > 50, edge.spec.edge
            assert seen.broken == 0, edge.spec.edge
            if edge.spec.policy == "backpressure":
                # At most one for each process that was killed.
                kills = starts[edge.spec.consumer] + starts[edge.spec.producer] - 2
                assert seen.dropped <= kills, edge.spec.edge
    finally:
        storm.clear()
        board.close()
        registry.close()
