"""Measures one coordinator with many simulated daemons over TLS, and its restart.

    python benchmarks/fleet_scale.py            # 10, 100 and 1,000 daemons of ten nodes each
    python benchmarks/fleet_scale.py 500 --plain --json numbers.json

The daemons live in a process of their own and run nothing: they connect as the real daemon does,
send heartbeats with the figures of ten nodes, and confirm every start and stop. The coordinator is
another process, with the durable store in a folder of its own. All share the machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from measure.simulated_daemons import Fleet, fleet, machine_id, node_ids

from dora_cli.coordinator.client import CoordinatorClient as CliClient
from dora_config.access import Endpoint, endpoint
from dora_config.access_token import Token
from dora_config.control_plane import ControlConnection
from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.protocol import control
from dora_config.protocol.daemon import HEARTBEAT_INTERVAL
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.envelope import Message, Request
from dora_config.protocol.snapshot import REUSED_SECONDS

STEADY_SECONDS = 12.0
DOWN_SECONDS = 2.0
"""From a kill of the coordinator until it is started again, as its service does."""
PATIENCE = 120.0
LISTS = 3
TOP_INTERVAL = 2.0


@dataclass(frozen=True)
class Numbers:
    """Results in seconds, except for other units in a name; CPU is the coordinator's."""

    daemons: int
    nodes: int
    register_all: float
    register_cpu: float
    kib_per_daemon: float
    start: float
    start_cpu: float
    steady_cpu_percent: float
    steady_cpu_percent_of_daemons: float
    list: float
    dora_list: float
    """`dora list`, the whole process."""
    cluster_status: float
    node_list: float
    snapshot: float
    """Machines, nodes and 20 edges of each machine, as `dora top` requests them."""
    snapshot_cpu: float
    """Until the answer is sent."""
    snapshot_of_ten: float
    """Ten viewers at once: until the last one has its answer."""
    snapshot_of_ten_cpu: float
    metrics: float
    """`GET /metrics`, of a new snapshot."""
    metrics_cpu: float
    top_cpu_percent: float
    """More than without an open `dora top` (a snapshot every 2 s)."""
    restart: float
    """From the start of the next coordinator until all daemons are connected to it."""
    restart_cpu: float
    restart_cpu_of_daemons: float
    dora_list_in_restart: float
    lost_after_restart: int
    """Registered connections to the next coordinator that were lost."""
    stop: float
    stop_cpu: float


class Coordinator:
    """A process on a port of its own, with a home of its own."""

    def __init__(self, home: str) -> None:
        self.environ = {
            **os.environ,
            "HOME": home,
            "XDG_STATE_HOME": home,
            "XDG_CONFIG_HOME": home,
        }
        self._port = 0
        self.start()
        self.where = endpoint("127.0.0.1", self._port, self.environ)

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dora_coordinator.command", "--port", str(self._port)],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        with self._process.stdout as output:
            found = re.search(rb"port (\d+)", output.readline())
        assert found is not None, "the coordinator did not start"
        self._port = int(found[1])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def cpu(self) -> float:
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def list_in_terminal(self) -> float:
        """Return the seconds that `dora list` takes."""
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "dora_config.launcher", "list"],
            env=self.environ | {"DORA_COORDINATOR_PORT": str(self._port)},
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=PATIENCE,
        )
        return time.perf_counter() - begun


@contextmanager
def coordinator() -> Iterator[Coordinator]:
    with tempfile.TemporaryDirectory() as home:
        subject = Coordinator(home)
        try:
            yield subject
        finally:
            subject.kill()


class CoordinatorClient:
    def __init__(self, client: CliClient) -> None:
        self._client = client

    def request(self, request: Request[Message]) -> float:
        """Return the seconds until the answer; a failure is an error."""
        begun = time.perf_counter()
        self._client.request(request)
        return time.perf_counter() - begun

    def median(self, request: Request[Message]) -> float:
        return statistics.median(self.request(request) for _ in range(LISTS))


@contextmanager
def client(where: Endpoint) -> Iterator[CoordinatorClient]:
    with CliClient(where, timeout=60) as opened:
        opened.connect()
        yield CoordinatorClient(opened)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE:g} s for {what}")
        time.sleep(0.01)


def measure(count: int, *, plain: bool) -> Numbers:
    with coordinator() as subject:
        where = subject.where
        if plain:
            assert where.token is not None
            where = where._replace(token=Token.parse(where.token).secret)
        with client(where):
            pass  # the authority's certificate is stored, what is needed is imported
        memory, cpu, begun = subject.memory(), subject.cpu(), time.perf_counter()
        with fleet(count, where, processes=1) as daemons:
            wait_until(lambda: daemons.connected > 0, "the first daemon")
            begun = time.perf_counter()
            wait_until(lambda: daemons.connected == count, "all daemons")
            register_all = time.perf_counter() - begun
            register_cpu = subject.cpu() - cpu
            per_daemon = (subject.memory() - memory) / count / 1024
            with client(where) as active:
                start, start_cpu = _cost(subject, lambda: active.request(_start(count)))
                steady, of_daemons = _steady(subject, daemons)
                listed = active.median(control.ListDataflows())
                status = active.median(control.ClusterStatus())
                node_list = active.median(control.ListNodes())
                viewing = _viewing(subject, where, active, steady)
            whole = statistics.median(subject.list_in_terminal() for _ in range(LISTS))
            restart = _restart(subject, daemons)
            with client(where) as active:
                stop, stop_cpu = _cost(subject, lambda: active.request(control.StopDataflow()))
            return Numbers(
                daemons=count,
                nodes=count * len(node_ids(0)),
                register_all=register_all,
                register_cpu=register_cpu,
                kib_per_daemon=per_daemon,
                start=start,
                start_cpu=start_cpu,
                steady_cpu_percent=steady,
                steady_cpu_percent_of_daemons=of_daemons,
                list=listed,
                dora_list=whole,
                cluster_status=status,
                node_list=node_list,
                **asdict(viewing),
                restart=restart.seconds,
                restart_cpu=restart.cpu,
                restart_cpu_of_daemons=restart.cpu_of_daemons,
                dora_list_in_restart=restart.list_in_terminal,
                lost_after_restart=restart.lost,
                stop=stop,
                stop_cpu=stop_cpu,
            )


def _start(count: int) -> control.StartDataflow:
    nodes = tuple(
        ResolvedNode(id=node, path="node.py", deploy=ResolvedDeploy(machine=machine_id(number)))
        for number in range(count)
        for node in node_ids(number)
    )
    return control.StartDataflow(spec=DataflowSpec(resolved=ResolvedDataflow(nodes=nodes)))


def _cost(subject: Coordinator, request: Callable[[], float]) -> tuple[float, float]:
    """Return the seconds of a request, and the coordinator's CPU seconds."""
    cpu = subject.cpu()
    return request(), subject.cpu() - cpu


def _steady(subject: Coordinator, daemons: Fleet) -> tuple[float, float]:
    """Return the CPU of coordinator and daemons in per cent of one core."""
    time.sleep(HEARTBEAT_INTERVAL)
    cpu, of_daemons, begun = subject.cpu(), daemons.cpu(), time.perf_counter()
    time.sleep(STEADY_SECONDS)
    share = 100 / (time.perf_counter() - begun)
    return (subject.cpu() - cpu) * share, (daemons.cpu() - of_daemons) * share


@dataclass(frozen=True)
class Viewing:
    """As in :class:`Numbers`."""

    snapshot: float
    snapshot_cpu: float
    snapshot_of_ten: float
    snapshot_of_ten_cpu: float
    metrics: float
    metrics_cpu: float
    top_cpu_percent: float


def _viewing(
    subject: Coordinator, where: Endpoint, active: CoordinatorClient, steady: float
) -> Viewing:
    def anew(request: Callable[[], float]) -> tuple[float, float]:
        time.sleep(2 * REUSED_SECONDS)
        return _cost(subject, request)

    def ten() -> float:
        with ExitStack() as stack, ThreadPoolExecutor(10) as threads:
            clients = [stack.enter_context(client(where)) for _ in range(10)]
            return max(
                threads.map(CoordinatorClient.request, clients, [control.GetSnapshot()] * 10)
            )

    def metrics() -> float:
        connection = ControlConnection(where, timeout=PATIENCE)
        begun = time.perf_counter()
        connection.request("GET", "/metrics", headers=where.headers())
        connection.getresponse().read()
        connection.close()
        return time.perf_counter() - begun

    snapshot, snapshot_cpu = anew(lambda: active.request(control.GetSnapshot()))
    of_ten, of_ten_cpu = anew(ten)
    scrape, scrape_cpu = anew(metrics)
    time.sleep(2 * REUSED_SECONDS)
    cpu, begun = subject.cpu(), time.perf_counter()
    while time.perf_counter() - begun < STEADY_SECONDS:
        took = active.request(control.GetSnapshot())
        time.sleep(max(0.0, TOP_INTERVAL - took))
    share = 100 / (time.perf_counter() - begun)
    top = (subject.cpu() - cpu) * share - steady
    return Viewing(snapshot, snapshot_cpu, of_ten, of_ten_cpu, scrape, scrape_cpu, top)


@dataclass(frozen=True)
class Restart:
    seconds: float
    cpu: float
    cpu_of_daemons: float
    list_in_terminal: float
    lost: int


def _restart(subject: Coordinator, daemons: Fleet) -> Restart:
    """Kill the coordinator, start it again, and wait for all daemons."""
    subject.kill()
    wait_until(lambda: daemons.connected == 0, "the loss of all connections")
    time.sleep(DOWN_SECONDS)
    lost, cpu, begun = daemons.lost, daemons.cpu(), time.perf_counter()
    subject.start()
    wait_until(lambda: daemons.connected > daemons.count // 10, "a tenth of the daemons")
    listed = subject.list_in_terminal()
    wait_until(lambda: daemons.connected == daemons.count, "all daemons")
    seconds = time.perf_counter() - begun
    used, used_by_daemons = subject.cpu(), daemons.cpu() - cpu
    time.sleep(HEARTBEAT_INTERVAL)
    return Restart(seconds, used, used_by_daemons, listed, daemons.lost - lost)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("daemons", nargs="*", type=int, default=[10, 100, 1000])
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    measured = [measure(count, plain=options.plain) for count in options.daemons]
    for name in asdict(measured[0]):
        values = (f"{getattr(numbers, name):>12,.3f}" for numbers in measured)
        print(f"{name:<30}{''.join(values)}")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(numbers) for numbers in measured], indent=2))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all processes are ended
    sys.exit(main())
