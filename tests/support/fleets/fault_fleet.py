"""A fleet of a robot and a station with faults of each process and connection."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from support.cut import CuttableWire, cuttable_wire
from support.dora import RunningDora, running_dora
from support.fleets.cables import Cable, cable
from support.fleets.daemons import RealFleet, is_running, real_fleet
from support.fleets.fault_flow import Flow, Number
from support.fleets.linked_fleet import link_of
from support.fleets.status_monitor import StatusMonitor, status_monitor
from support.runner.found_runners import list_runners
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.protocol.control import DataflowSummary
from dora_daemon.process_tree.runtime_dir import runtime_root

MACHINES = ("robot", "station")
SETTINGS = (
    *("--set", "heartbeat_interval=0.3"),
    *("--set", "daemon_silence_limit=2"),
    *("--set", "coordinator_silence_limit=2"),
    *("--set", "recovery_backoff=1"),
    *("--set", "link_timeout=8"),
)
_LISTEN = "0A"
"""State of a socket in /proc/net/tcp."""
FLOWING = "Running Degraded Recovering"
"""Statuses of a dataflow that was started and not stopped."""


@dataclass
class FaultFleet:
    real: RealFleet
    flow: Flow
    stack: ExitStack
    wires: dict[str, CuttableWire]
    cable: Cable | None
    monitor: StatusMonitor = field(init=False)
    uuid: str = ""

    # --------------------------------------------------------------- processes

    def pids(self, process: str) -> list[int]:
        """Return the process ids of a row's process, or of all processes of a machine."""
        kind, _, machine = process.partition(" ")
        match kind:
            case "coordinator":
                return [self.real.coordinator.process.pid]
            case "daemon":
                return [self.real.daemons[machine].pid]
            case "runner":
                return self.runners(machine)
            case "link":
                with suppress(AssertionError, ValueError, OSError):
                    return [link_of(machine)]
                return []
            case "machine":
                found = [self.real.daemons[machine].pid, *self.runners(machine)]
                for pid in list(found):
                    with suppress(psutil.NoSuchProcess):
                        below = psutil.Process(pid).children(recursive=True)
                        found += [child.pid for child in below if child.pid not in found]
                return found
            case _:
                return self.flow.living()[kind]

    def runners(self, machine: str) -> list[int]:
        found = list_runners(runtime_root())
        return [one.entry.pid for one in found if one.alive and one.entry.machine_id == machine]

    def kill(self, process: str) -> None:
        """Send SIGKILL to a process, or to all processes of a machine."""
        pids = self.pids(process)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for one in (self.real.coordinator.process, *self.real.daemons.values()):
            if one.pid in pids:
                one.kill()
        wait_until(lambda: not any(map(is_running, pids)), what=process)

    @contextmanager
    def stopped(self, process: str) -> Iterator[None]:
        """Stop a process with SIGSTOP for the block."""
        pids = self.pids(process)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextmanager
    def cut(self, network: str) -> Iterator[None]:
        """Cut a machine's connection to the coordinator ("network robot") or the "cable"."""
        _, _, machine = network.partition(" ")
        wire: CuttableWire | Cable | None = self.wires[machine] if machine else self.cable
        assert wire is not None
        wire.cut()
        try:
            yield
        finally:
            wire.heal()

    def start_daemon(self, machine: str, *, wait: bool = True) -> None:
        wire = ("--coordinator-port", str(self.wires[machine].port))
        if self.cable is None:
            self.real.start_daemon(machine, *wire, wait=wait)
            return
        listen = ("--zenoh-listen", self.cable.addresses[machine])
        with self.cable.at(machine):
            self.real.start_daemon(machine, *wire, *listen, wait=wait)

    def bring_back(self, process: str, *, wait: bool = True) -> None:
        """Restart a coordinator or daemon, which have no supervisor here."""
        kind, _, machine = process.partition(" ")
        if kind == "coordinator":
            self.real.restart_coordinator()
        elif kind in ("daemon", "machine"):
            self.start_daemon(machine, wait=wait)

    # --------------------------------------------------------------- dataflow

    def starting(self) -> RunningDora:
        """Begin ``dora start``; the messages of the previous dataflow are forgotten."""
        self.flow.clear()
        known = {one.uuid for one in self.real.listed()}
        begun = self._command("start", self.flow.file, "--detach")
        self._wait(lambda: {one.uuid for one in self.real.listed()} - known != set(), "a start")
        self.uuid = self.real.listed()[-1].uuid
        return begun

    def stopping(self) -> RunningDora:
        return self._command("stop", self.uuid)

    def _command(self, *words: str | Path) -> RunningDora:
        port = ("--coordinator-port", str(self.real.port))
        cwd = self.real.workspace.path
        return self.stack.enter_context(running_dora(*words, *port, cwd=cwd))

    def summary(self) -> DataflowSummary:
        return next(one for one in self.real.listed() if one.uuid == self.uuid)

    def wait_for_status(self, *statuses: str) -> DataflowSummary:
        self._wait(lambda: self.summary().status in statuses, " or ".join(statuses))
        return self.summary()

    def wait_until_it_runs(self) -> None:
        """Wait until it is listed as running with each node once, and new messages arrive."""
        self.wait_for_status("Running")
        self._wait(lambda: all(len(pids) == 1 for pids in self.flow.living().values()), "one each")
        for input_id in ("steady", "newest"):
            self.wait_for_more(input_id, self.flow.sent(input_id))

    def wait_for_more(self, input_id: str, than: Number) -> None:
        """Wait for a newer message at an input of the sink."""
        self._wait(lambda: self.flow.last(input_id) > than, f"a newer message at {input_id}")

    def wait_until_nothing_is_left(self) -> None:
        """Wait for the end of all nodes and runners and the removal of their files."""
        self._wait(lambda: not any(self.flow.living().values()), "the end of the nodes")
        self._wait(lambda: not list_runners(runtime_root()), "the end of the runners")

    def wait_for_nodes(self) -> None:
        """Wait until each node has a process."""
        self._wait(lambda: all(self.flow.living().values()), "a process of each node")

    def wait_until_links_listen(self) -> None:
        self._wait(lambda: all(map(_listens, MACHINES)), "the links to listen")

    def _wait(self, condition: object, what: str) -> None:
        assert callable(condition)
        wait_until(condition, what=lambda: f"{what}\n{self.state()}")

    def state(self) -> str:
        """Return statuses, logs and output of all processes, for a failed test."""
        lines = [f"nodes: {self.flow.living()}", f"listed: {self.monitor.seen}"]
        with suppress(Exception):
            lines.append(f"dataflow: {self.summary()}")
        for input_id in ("steady", "newest"):
            last, sent = self.flow.last(input_id), self.flow.sent(input_id)
            lines.append(f"{input_id}: sent {sent}, received {last}")
        logs = [*(self.flow.path / "out" / self.uuid).glob("*dora*"), *runner_logs()]
        for path in logs:
            with suppress(OSError):
                lines += [f"--- {path}", *path.read_text().splitlines()[-25:]]
        processes = {"coordinator": self.real.coordinator.process, **self.real.daemons}
        for name, one in processes.items():
            lines += [f"--- {name} ({one.pid})", *one.stderr.splitlines()[-25:]]
        return "\n".join(lines)


def runner_logs() -> list[Path]:
    return [found.path / "runner.log" for found in list_runners(runtime_root())]


def _listens(machine: str) -> bool:
    """Return whether a machine's link listens, in its network namespace."""
    with suppress(AssertionError, ValueError, OSError):
        link = Path(f"/proc/{link_of(machine)}")
        sockets = {os.readlink(one) for one in (link / "fd").iterdir()}
        lines = [line.split() for line in (link / "net" / "tcp").read_text().splitlines()]
        return any(line[3] == _LISTEN and f"socket:[{line[9]}]" in sockets for line in lines)
    return False


@contextmanager
def fault_fleet(
    workspace: Workspace, *, cuttable: bool = False, settings: Sequence[str] = ()
) -> Iterator[FaultFleet]:
    """A coordinator and connected daemons; ``cuttable``: each in a network namespace."""
    with ExitStack() as stack:
        flow = Flow(workspace)
        wired = stack.enter_context(cable(*MACHINES)) if cuttable else None
        real = stack.enter_context(real_fleet(workspace, settings=(*SETTINGS, *settings)))
        wires = {}
        for machine in MACHINES:
            listener = wired.listener(machine) if wired is not None else None
            wires[machine] = stack.enter_context(cuttable_wire(real.port, listener))
        fleet = FaultFleet(real, flow, stack, wires, wired)
        for machine in MACHINES:
            fleet.start_daemon(machine)
        watched = status_monitor(lambda: real.coordinator.endpoint, flow.living)
        fleet.monitor = stack.enter_context(watched)
        try:
            yield fleet
        finally:
            flow.release()
            for wire in wires.values():
                wire.heal()
