"""Daemons that run nothing, with the connection of the real daemon; many in one process."""

from __future__ import annotations

import base64
import logging
import multiprocessing
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import anyio
import psutil
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dora_config.access import Endpoint
from dora_config.protocol.daemon import (
    CoordinatorMessage,
    DaemonAnswered,
    DaemonCall,
    Heartbeat,
    Metrics,
    PartChanged,
    PartPhase,
    PartReport,
    PreparePart,
    Register,
    Registered,
    ReleasePart,
    StopPart,
)
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.runner import (
    DataflowResult,
    EdgeStatus,
    NodeResult,
    NodeStatus,
    Statistics,
)
from dora_config.protocol.snapshot import MachineSample, SampleMachine
from dora_daemon.agent.coordinator_access import CoordinatorAccess
from dora_daemon.agent.coordinator_link import CoordinatorLink

NODES = 10
"""On each daemon."""
LATENCIES = tuple((1 << exponent, 100_000) for exponent in range(14, 26))

_SPAWN = multiprocessing.get_context("spawn")


def machine_id(number: int) -> str:
    return f"machine-{number}"


def node_ids(number: int) -> tuple[str, ...]:
    return tuple(f"node-{number}-{index}" for index in range(NODES))


class Fleet:
    """Processes with ``count`` daemons together."""

    def __init__(self, count: int, where: Endpoint, processes: int) -> None:
        self.count = count
        self._connected: list[Synchronized[int]] = [_SPAWN.Value("i", 0) for _ in range(processes)]
        self._lost: list[Synchronized[int]] = [_SPAWN.Value("i", 0) for _ in range(processes)]
        self._processes: list[SpawnProcess] = [
            _SPAWN.Process(
                target=_run, args=(range(index, count, processes), where, connected, lost)
            )
            for index, (connected, lost) in enumerate(zip(self._connected, self._lost, strict=True))
        ]
        for process in self._processes:
            process.start()

    @property
    def connected(self) -> int:
        return sum(number.value for number in self._connected)

    @property
    def lost(self) -> int:
        """Registered connections that have ended."""
        return sum(number.value for number in self._lost)

    def cpu(self) -> float:
        """CPU seconds of all processes until now."""
        times = [psutil.Process(process.pid).cpu_times() for process in self._processes]
        return float(sum(one.user + one.system for one in times))

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


@contextmanager
def fleet(count: int, where: Endpoint, processes: int) -> Iterator[Fleet]:
    daemons = Fleet(count, where, processes)
    try:
        yield daemons
    finally:
        daemons.end()


def _run(
    numbers: range, where: Endpoint, connected: Synchronized[int], lost: Synchronized[int]
) -> None:
    logging.disable()  # each daemon reports a lost coordinator
    anyio.run(_run_all, numbers, where, connected, lost)


async def _run_all(numbers: range, where: Endpoint, *counters: Any) -> None:
    async with anyio.create_task_group() as tasks:
        for number in numbers:
            tasks.start_soon(_SimulatedDaemon(number, where, *counters).run)


class _SimulatedDaemon:
    """Confirms every start and stop, and reports ten nodes in its heartbeats."""

    def __init__(
        self,
        number: int,
        where: Endpoint,
        connected: Synchronized[int],
        lost: Synchronized[int],
    ) -> None:
        self._machine = machine_id(number)
        self._instance = str(uuid.uuid4())
        self._nodes = node_ids(number)
        self._connected, self._lost_count = connected, lost
        self._part: PartReport | None = None
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._link = CoordinatorLink(
            access=CoordinatorAccess(Path("/nowhere"), lambda: where),
            register=self._register,
            sign=self._sign,
            heartbeat=self._heartbeat,
            received=self._received,
            lost=self._lost,
        )

    async def run(self) -> None:
        await self._link.run()

    def _register(self) -> Register:
        return Register(
            party=ProgramVersion(program="bench", release="0"),
            instance=self._instance,
            incarnation="1",
            machine_id=self._machine,
            public_key=self._public_key(),
            parts=() if self._part is None else (self._part,),
        )

    def _public_key(self) -> str:
        encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        return base64.b64encode(self._key.public_key().public_bytes(encoding, form)).decode()

    def _sign(self, text: bytes) -> str:
        return base64.b64encode(self._key.sign(text, ec.ECDSA(hashes.SHA256()))).decode()

    def _heartbeat(self) -> Heartbeat:
        if self._part is None or self._part.phase != "running":
            return Heartbeat()
        sampled = tuple(
            NodeStatus(node=node, status="Running", pid=4000, cpu_percent=12.5, memory_bytes=10**8)
            for node in self._nodes
        )
        return Heartbeat(metrics=(Metrics(dataflow_id=self._part.dataflow_id, nodes=sampled),))

    def _received(self, message: CoordinatorMessage) -> None:
        match message:
            case Registered():
                self._connected.value += 1
            case PreparePart(dataflow_id=dataflow_id, attempt=attempt):
                self._report(dataflow_id, attempt, "prepared")
            case ReleasePart(dataflow_id=dataflow_id, attempt=attempt):
                self._report(dataflow_id, attempt, "running")
            case DaemonCall(call=call, request=SampleMachine()):
                self._link.send(DaemonAnswered(call=call, reply=self._sample()))
            case StopPart(dataflow_id=dataflow_id):
                self._report(dataflow_id, 1, "ended")

    def _sample(self) -> MachineSample:
        """Two edges for each node, with the counters of a busy one."""
        part = self._part
        edges = tuple(
            EdgeStatus(
                source=f"{source}/output",
                target=f"{target}/input",
                policy="drop_oldest",
                bound=10,
                sent=1_234_567,
                received=1_234_000,
                dropped=567,
                bytes_sent=12_345_678_900,
                bytes_received=12_340_000_000,
                idle_seconds=0.0123,
                latency_us={"p50": 123.4, "p99": 1234.5, "max": 12345.6},
                latency_counts=LATENCIES,
            )
            for source in self._nodes
            for target in self._nodes[:2]
        )
        parts = {} if part is None else {part.dataflow_id: Statistics(edges=edges)}
        return MachineSample(parts=parts)

    def _report(self, dataflow_id: str, attempt: int, phase: PartPhase) -> None:
        result = None
        if phase == "ended":
            ended = tuple(NodeResult(node=node, outcome="success") for node in self._nodes)
            result = DataflowResult(dataflow_id=dataflow_id, nodes=ended)
        self._part = PartReport(
            dataflow_id=dataflow_id, attempt=attempt, phase=phase, result=result
        )
        self._link.send(PartChanged(report=self._part))

    def _lost(self) -> None:
        self._connected.value -= 1
        self._lost_count.value += 1
