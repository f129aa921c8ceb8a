"""A coordinator and a daemon on each of two hosts, and dataflows that run across both."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dataflow import LIMIT, BenchNode, MeasurementFailed
from .hosts import Host, two_hosts
from .systems import System

MACHINES = ("one", "two")


@dataclass
class Fleet:
    """Two daemons under one coordinator, on the first host."""

    system: System
    hosts: tuple[Host, Host]
    folder: Path
    daemon_options: tuple[str, ...] = ()

    def environment(self, machine: int) -> dict[str, str]:
        """Return the environment of a machine: shared token, own state."""
        state = self.folder / f"state-{machine}"
        state.mkdir(exist_ok=True)
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return self.system.environment() | {
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "XDG_STATE_HOME": str(state),
            "XDG_RUNTIME_DIR": str(state),
        }

    def dora(self, *arguments: str, check: bool = True) -> str:
        """Run a command on the first host to its end and return what it printed."""
        command = self.hosts[0].command([str(self.system.programs / "dora"), *arguments])
        done = subprocess.run(
            command,
            env=self.environment(0) | self._where(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        output = done.stdout + done.stderr
        if check and done.returncode != 0:
            raise MeasurementFailed(self.system, f"dora {' '.join(arguments)}", output + self.log())
        return output

    def _where(self) -> dict[str, str]:
        return {"DORA_COORDINATOR_ADDR": self.hosts[0].address}

    def start_daemon(self, machine: int) -> subprocess.Popen[bytes]:
        host = self.hosts[machine]
        where = ["--coordinator-addr", self.hosts[0].address]
        return host.start(
            [
                *(str(self.system.programs / "dora"), "daemon", "--machine-id", MACHINES[machine]),
                *where,
                *self.daemon_options,
            ],
            self.environment(machine),
            self.folder / f"daemon-{machine}.txt",
        )

    def log(self) -> str:
        """The last lines of every process of the fleet."""
        parts = []
        for file in sorted(self.folder.glob("*.txt")):
            lines = file.read_text(errors="replace").splitlines()[-12:]
            parts += [f"--- {file.stem}", *lines]
        return "\n".join(parts)

    def wait(self, condition: Callable[[], Any], what: str, limit: float = LIMIT) -> Any:
        """Wait until a condition is true and return its value. Raises MeasurementFailed."""
        deadline = time.monotonic() + limit
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise MeasurementFailed(self.system, f"no {what} in {limit} s", self.log())
            time.sleep(0.01)
        return value

    # ------------------------------------------------------------------------- dataflows

    def start(self, name: str, nodes: Sequence[tuple[int, BenchNode]]) -> Path:
        """Start a dataflow of nodes on machines; returns the folder of their results."""
        folder = self.folder / name
        folder.mkdir()
        placed = []
        for machine, node in nodes:
            entry = node.as_yaml(self.system, folder)
            entry["deploy"] = {"machine": MACHINES[machine]}
            placed.append(entry)
        (folder / "dataflow.yml").write_text(json.dumps({"nodes": placed}))
        self.dora("start", str(folder / "dataflow.yml"), "--name", name, "--detach")
        return folder

    def results(self, folder: Path, nodes: Sequence[str]) -> Mapping[str, Any]:
        """Wait until these nodes have written their results."""
        return {
            node: self.wait(lambda node=node: read(folder, node), f"result of {node}")  # type: ignore[misc]
            for node in nodes
        }

    def stop(self, name: str) -> float:
        """Stop a dataflow; seconds until the command returned."""
        begun = time.monotonic()
        self.dora("stop", name, "--grace", "5s", check=False)
        return time.monotonic() - begun


def read(folder: Path, node: str) -> Any:
    """Return the result that a node has written, or None."""
    try:
        return json.loads((folder / f"{node}.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


@contextmanager
def fleet(
    system: System, *, pinned: bool = False, daemon_options: tuple[str, ...] = ()
) -> Iterator[Fleet]:
    """A fleet with both daemons connected. ``pinned``: each host has one core."""
    with (
        tempfile.TemporaryDirectory(prefix="dora-bench-") as name,
        two_hosts(pinned=pinned) as hosts,
    ):
        made = Fleet(system, hosts, Path(name), daemon_options)
        coordinator = [str(system.programs / "dora"), "coordinator"]
        hosts[0].start(
            [*coordinator, "--interface", hosts[0].address],
            made.environment(0),
            made.folder / "coordinator.txt",
        )
        made.wait(lambda: _answers(made), "coordinator", 20)
        for machine in range(len(hosts)):
            made.start_daemon(machine)
        made.wait(lambda: both_connected(made), "daemons", 20)
        yield made


def _answers(made: Fleet) -> bool:
    try:
        made.dora("list")
    except MeasurementFailed:
        return False
    return True


def both_connected(made: Fleet) -> bool:
    """Return whether both daemons are connected."""
    output = made.dora("cluster", "status", check=False)
    return all(machine in output for machine in MACHINES)
