"""A coordinator and daemons on this machine, for tests that kill them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from support.dora import Completed, RunningDora, run_dora, running_dora
from support.fleets.coordinator import DataflowReader, RunningCoordinator, running_coordinator
from support.runner import log_files
from support.runner.found_runners import list_runners
from support.waiting import PATIENCE, wait_until
from support.workspace import Workspace

from dora_cli.coordinator.client import CoordinatorClient
from dora_config.protocol.control import (
    ClusterReport,
    ClusterStatus,
    DataflowSummary,
    StopDataflow,
)
from dora_daemon.process_tree.runtime_dir import runtime_root

COUNTER = """
    import os
    from pathlib import Path
    from dora import Node

    node = Node()
    with Path("pids").open("a") as file:
        print(os.getpid(), file=file)
    count = 0
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("count", bytes(count.to_bytes(8, "little")))
            count += 1
"""

COLLECTOR = """
    import os
    from pathlib import Path
    from dora import Node

    node = Node()
    with Path("pids").open("a") as file:
        print(os.getpid(), file=file)
    for event in node:
        if event["type"] == "INPUT":
            number = int.from_bytes(bytes(event["value"].to_pylist()), "little")
            print("got", number, flush=True)
        else:
            print("event", event["type"], flush=True)
"""


def counting(workspace: Workspace, **deploy: dict[str, object]) -> Path:
    """A dataflow of a counter with 50 messages a second and a collector that prints them."""
    workspace.node("counter", COUNTER)
    workspace.node("collector", COLLECTOR)
    nodes: list[dict[str, object]] = [
        {
            "id": "counter",
            "path": "counter.py",
            "inputs": {"tick": "dora/timer/millis/20"},
            "outputs": ["count"],
        },
        {
            "id": "collector",
            "path": "collector.py",
            # long enough for the import of pyarrow at the first message
            "inputs": {"count": {"source": "counter/count", "queue_size": 1000}},
        },
    ]
    for node in nodes:
        placed = deploy.get(str(node["id"]))
        if placed is not None:
            node["deploy"] = placed
    return workspace.dataflow({"nodes": nodes})


def pids(workspace: Workspace) -> list[int]:
    """Return the process ids of all nodes so far."""
    with suppress(FileNotFoundError):
        return [int(line) for line in (workspace.path / "pids").read_text().split()]
    return []


def wait_for_pids(workspace: Workspace, count: int) -> list[int]:
    """Wait until ``count`` nodes have started; return the process ids of the last two."""
    wait_until(lambda: len(pids(workspace)) >= count, what=f"{count} nodes to have started")
    return pids(workspace)[-2:]


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@dataclass
class RealFleet:
    workspace: Workspace
    coordinator: RunningCoordinator
    stack: ExitStack
    daemons: dict[str, RunningDora] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    reader: DataflowReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = DataflowReader(lambda: self.coordinator.endpoint)
        self.stack.callback(self.reader.close)

    @property
    def port(self) -> int:
        return self.coordinator.port

    def dora(self, *args: str | Path, code: int = 0, timeout: float = PATIENCE) -> Completed:
        """Run a command with this coordinator."""
        words = (*args, "--coordinator-port", str(self.port))
        return run_dora(*words, cwd=self.workspace.path, timeout=timeout).exited(code)

    def start_daemon(
        self,
        machine: str | None = None,
        *args: str,
        wait: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> RunningDora:
        """Start a daemon and (``wait``) wait until it is connected."""
        named = ("--machine-id", machine) if machine is not None else ()
        words = ("daemon", *named, "--coordinator-port", str(self.port), *args)
        running = self.stack.enter_context(running_dora(*words, cwd=self.workspace.path, env=env))
        if wait:
            running.wait_for("connected to the coordinator")
        self.daemons[machine or "default"] = running
        return running

    def restart_coordinator(self) -> None:
        """Start the coordinator again on the same port with the same store."""
        again = running_coordinator(*self.settings, port=self.port, cwd=self.workspace.path)
        self.coordinator = self.stack.enter_context(again)

    def start(self, path: Path, *args: str) -> str:
        """Start a dataflow with ``--detach``; return its UUID."""
        done = self.dora("start", path, "--detach", *args)
        return done.stdout.split("dataflow started: ")[1].strip()

    def listed(self) -> list[DataflowSummary]:
        return self.reader.dataflows()

    def end_dataflows(self) -> None:
        """Kill the nodes of all dataflows and wait for their end."""
        with CoordinatorClient(self.coordinator.endpoint) as client:
            for one in self.listed():
                if one.status not in ("Finished", "Failed"):
                    stop = StopDataflow(dataflow=one.uuid, force=True)
                    client.request(stop)

    def cluster(self) -> ClusterReport:
        with CoordinatorClient(self.coordinator.endpoint) as client:
            return client.request(ClusterStatus())

    def wait_for_status(self, status: str, *, timeout: float = PATIENCE) -> DataflowSummary:
        """Wait until the newest dataflow has that status."""
        wait_until(
            # Without its store, a coordinator lists none until a daemon has registered.
            lambda: [one.status for one in self.listed()[-1:]] == [status],
            timeout=timeout,
            what=lambda: f"{status}; it is {self.listed()[-1:]}",
        )
        return self.listed()[-1]

    def runner_pid(self) -> int:
        """Return the process id of the only living runner."""
        (found,) = [one for one in list_runners(runtime_root()) if one.alive]
        return found.entry.pid

    def messages(self, dataflow: str) -> list[int]:
        """Return the numbers that the collector has printed so far."""
        log = self.workspace.path / "out" / dataflow / "log_collector.jsonl"
        if not log.exists():
            return []
        return [int(line.split()[1]) for line in log_files.texts(log) if line.startswith("got ")]

    def wait_for_messages(self, dataflow: str, more: int = 10) -> None:
        """Wait until the collector has received some more messages."""
        before = len(self.messages(dataflow))
        wait_until(lambda: len(self.messages(dataflow)) >= before + more, what="more messages")


@contextmanager
def real_fleet(
    workspace: Workspace, *daemons: str | None, settings: Sequence[str] = ()
) -> Iterator[RealFleet]:
    """A coordinator and daemons with these machine ids (None: the default daemon).

    All of them and the runners are killed at the end of the block.
    """
    with ExitStack() as stack:
        coordinator = stack.enter_context(running_coordinator(*settings, cwd=workspace.path))
        fleet = RealFleet(workspace, coordinator, stack, settings=tuple(settings))
        for machine in daemons:
            fleet.start_daemon(machine)
        try:
            yield fleet
        finally:
            for daemon in fleet.daemons.values():
                daemon.kill()
            end_runners()


def end_runners() -> None:
    """Kill every runner of this home; wait until their reapers have cleaned up."""
    root = runtime_root()
    for found in list_runners(root):
        if found.alive:
            with suppress(ProcessLookupError):
                os.kill(found.entry.pid, signal.SIGKILL)
    from dora_daemon.process_tree.reaper import RESULT
    from dora_daemon.process_tree.runtime_dir import sweep

    def gone() -> bool:
        for found in list_runners(root):
            (found.path / RESULT).unlink(missing_ok=True)
        sweep(root)
        return not list_runners(root)

    wait_until(gone, what="the removal of runtime directories")
