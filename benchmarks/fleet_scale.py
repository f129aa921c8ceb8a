"""Measures one coordinator with many simulated daemons over real WebSockets.

    python benchmarks/fleet_scale.py            # 10, 100 and 1,000 daemons of ten nodes each
    python benchmarks/fleet_scale.py 500 --json numbers.json

The daemons live in this process and run nothing: they register, send heartbeats with the figures of
ten nodes, and confirm every start and stop. The coordinator is a process of its own with the
durable store, in a folder of its own. CPU is the coordinator's; both share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from websockets.asyncio.client import ClientConnection, connect

from dora_config.access import Endpoint, endpoint
from dora_config.control_plane import websocket_options
from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.protocol import control
from dora_config.protocol.control import CLIENT_CODEC, SERVER_CODEC, ControlRequest
from dora_config.protocol.daemon import (
    TO_COORDINATOR,
    TO_DAEMON,
    Heartbeat,
    Metrics,
    PartChanged,
    PartPhase,
    PartReport,
    PreparePart,
    Register,
    ReleasePart,
    StopPart,
)
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.envelope import ProgramVersion
from dora_config.protocol.runner import DataflowResult, NodeResult, NodeStatus

NODES = 10
"""On each daemon."""
HEARTBEAT = 3.0
STEADY_SECONDS = 12.0
PARTY = ProgramVersion(program="bench", release="0")


@dataclass(frozen=True)
class Numbers:
    """Results in seconds, except for other units in a name."""

    daemons: int
    nodes: int
    register_all: float
    kib_per_daemon: float
    start: float
    start_cpu: float
    steady_cpu_percent: float
    list: float
    cluster_status: float
    node_list: float
    stop: float
    stop_cpu: float


class Coordinator:
    def __init__(self, process: subprocess.Popen[bytes], where: Endpoint) -> None:
        self.where = where
        self._process = psutil.Process(process.pid)

    def cpu(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        return int(self._process.memory_info().rss)


@contextmanager
def coordinator() -> Iterator[Coordinator]:
    """A coordinator on a free port, in a home of its own; killed at the end."""
    with tempfile.TemporaryDirectory() as home:
        environ = {**os.environ, "HOME": home, "XDG_STATE_HOME": home, "XDG_CONFIG_HOME": home}
        process = subprocess.Popen(
            [sys.executable, "-m", "dora_coordinator.command", "--port", "0"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert process.stdout is not None
            port = re.search(rb"port (\d+)", process.stdout.readline())
            assert port is not None, "the coordinator did not start"
            yield Coordinator(process, endpoint("127.0.0.1", int(port[1]), environ))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def open_socket(where: Endpoint, path: str) -> connect:
    options = websocket_options(where, path)
    return connect(**options, max_size=None, ping_interval=None, open_timeout=60)


class SimulatedDaemon:
    def __init__(self, number: int) -> None:
        self.machine = f"machine-{number}"
        self.nodes = tuple(f"node-{number}-{index}" for index in range(NODES))
        self.registered = asyncio.Event()
        self._dataflow: str | None = None

    async def run(self, where: Endpoint, delay: float) -> None:
        """``delay`` spreads the heartbeats of the fleet over their interval."""
        async with open_socket(where, "/api/daemon") as socket:
            register = Register(
                party=PARTY,
                instance=str(uuid.uuid4()),
                incarnation="1",
                machine_id=self.machine,
            )
            await socket.send(TO_COORDINATOR.encode(register))
            await socket.recv()
            self.registered.set()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._beat(socket, delay))
                tasks.create_task(self._obey(socket))

    async def _beat(self, socket: ClientConnection, delay: float) -> None:
        await asyncio.sleep(delay)
        sampled = tuple(
            NodeStatus(node=n, state="Running", pid=4000, cpu_percent=12.5, memory_bytes=10**8)
            for n in self.nodes
        )
        while True:
            metrics: tuple[Metrics, ...] = ()
            if self._dataflow is not None:
                metrics = (Metrics(dataflow_id=self._dataflow, nodes=sampled),)
            await socket.send(TO_COORDINATOR.encode(Heartbeat(metrics=metrics)))
            await asyncio.sleep(HEARTBEAT)

    async def _obey(self, socket: ClientConnection) -> None:
        async for text in socket:
            match TO_DAEMON.decode(text):
                case PreparePart(dataflow_id=dataflow_id):
                    self._dataflow = dataflow_id
                    await self._say(socket, "prepared")
                case ReleasePart():
                    await self._say(socket, "running")
                case StopPart():
                    await self._say(socket, "ended")

    async def _say(self, socket: ClientConnection, phase: PartPhase) -> None:
        assert self._dataflow is not None
        result = None
        if phase == "ended":
            ended = tuple(NodeResult(node=node, outcome="success") for node in self.nodes)
            result = DataflowResult(dataflow_id=self._dataflow, nodes=ended)
        report = PartReport(dataflow_id=self._dataflow, attempt=1, phase=phase, result=result)
        await socket.send(TO_COORDINATOR.encode(PartChanged(report=report)))


class Client:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._last = 0

    async def ask(self, request: ControlRequest) -> float:
        """Seconds until the answer; a failure is an error."""
        self._last += 1
        begun = time.perf_counter()
        await self._socket.send(
            CLIENT_CODEC.encode(control.ClientRequest(id=self._last, request=request))
        )
        while True:
            frame = SERVER_CODEC.decode(await self._socket.recv())
            if isinstance(frame, control.Failure):
                raise RuntimeError(frame.message)
            if isinstance(frame, control.Answer):
                return time.perf_counter() - begun


async def measure(count: int) -> Numbers:
    daemons = [SimulatedDaemon(number) for number in range(count)]
    with coordinator() as subject:
        before = subject.memory()
        begun = time.perf_counter()
        running = [
            asyncio.create_task(daemon.run(subject.where, HEARTBEAT * number / count))
            for number, daemon in enumerate(daemons)
        ]
        for daemon in daemons:
            await daemon.registered.wait()
        registered = time.perf_counter() - begun
        per_daemon = (subject.memory() - before) / count / 1024
        try:
            async with open_socket(subject.where, "/api/control") as socket:
                await socket.send(CLIENT_CODEC.encode(control.Hello(party=PARTY)))
                await socket.recv()
                return await _drive(Client(socket), subject, daemons, registered, per_daemon)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def _drive(
    client: Client,
    subject: Coordinator,
    daemons: list[SimulatedDaemon],
    registered: float,
    per_daemon: float,
) -> Numbers:
    nodes = tuple(
        ResolvedNode(id=node, path="node.py", deploy=ResolvedDeploy(machine=daemon.machine))
        for daemon in daemons
        for node in daemon.nodes
    )
    spec = DataflowSpec(resolved=ResolvedDataflow(nodes=nodes))
    cpu = subject.cpu()
    start = await client.ask(control.StartDataflow(spec=spec))
    start_cpu = subject.cpu() - cpu
    await asyncio.sleep(HEARTBEAT)
    cpu, begun = subject.cpu(), time.perf_counter()
    await asyncio.sleep(STEADY_SECONDS)
    steady = (subject.cpu() - cpu) / (time.perf_counter() - begun) * 100
    listed = await client.ask(control.ListDataflows())
    status = await client.ask(control.ClusterStatus())
    node_list = await client.ask(control.ListNodes())
    cpu = subject.cpu()
    stop = await client.ask(control.StopDataflow())
    return Numbers(
        daemons=len(daemons),
        nodes=len(nodes),
        register_all=registered,
        kib_per_daemon=per_daemon,
        start=start,
        start_cpu=start_cpu,
        steady_cpu_percent=steady,
        list=listed,
        cluster_status=status,
        node_list=node_list,
        stop=stop,
        stop_cpu=subject.cpu() - cpu,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("daemons", nargs="*", type=int, default=[10, 100, 1000])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    measured = [asyncio.run(measure(count)) for count in options.daemons]
    for name in asdict(measured[0]):
        values = (f"{getattr(numbers, name):>12,.3f}" for numbers in measured)
        print(f"{name:<20}{''.join(values)}")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(numbers) for numbers in measured], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
