"""Runs one dataflow under one system and reads the results of its nodes."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from .systems import System

NODES = Path(__file__).parent.parent / "nodes"
LIMIT = 90.0  # seconds until a dataflow counts as stuck


class MeasurementFailed(Exception):
    """A dataflow did not run to its end; `output` holds the last lines it printed."""

    def __init__(self, system: System, reason: str, output: str) -> None:
        self.output = output
        lines = "\n    ".join(output.splitlines()[-15:])
        super().__init__(f"{system.name}: {reason}\n    {lines}")


@dataclass(frozen=True)
class BenchNode:
    """A node of a measured dataflow: its file, its edges, its settings (BENCH_... variables)."""

    id: str
    file: str
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    settings: dict[str, str | int | float] = field(default_factory=dict)

    def as_yaml(self, system: System, folder: Path) -> dict[str, Any]:
        env = {f"BENCH_{name}": str(value) for name, value in self.settings.items()}
        env["BENCH_RESULT"] = str(folder / f"{self.id}.json")
        node: dict[str, Any] = {"id": self.id, "path": str(NODES / self.file)}
        node["env"] = env | system.node_env
        if self.inputs:
            node["inputs"] = self.inputs
        if self.outputs:
            node["outputs"] = list(self.outputs)
        return node


@dataclass(frozen=True)
class Outcome:
    """Wall time of a run in seconds, and the result of each node."""

    seconds: float
    results: dict[str, Any]


def run(system: System, nodes: list[BenchNode], cores: set[int] | None = None) -> Outcome:
    """Run the dataflow to its end. Raises MeasurementFailed if it fails or takes too long."""
    with started(system, nodes, cores) as dataflow:
        begun = dataflow.begun
        code = dataflow.wait(LIMIT)
        seconds = time.monotonic() - begun
        if code != 0:
            raise MeasurementFailed(system, f"exit code {code}", dataflow.output())
        results = {node.id: dataflow.result(node.id) for node in nodes}
    return Outcome(seconds, results)


@dataclass
class RunningDataflow:
    """A `dora run` under way in a folder of its own."""

    system: System
    process: subprocess.Popen[bytes]
    folder: Path
    begun: float

    def wait(self, limit: float) -> int:
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise MeasurementFailed(
                self.system, f"no end within {limit} s", self.output()
            ) from None

    def output(self) -> str:
        return (self.folder / "terminal.txt").read_text(errors="replace")

    def result(self, node: str) -> Any:
        """Return what a node has written so far, None if nothing yet."""
        try:
            return json.loads((self.folder / f"{node}.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def stop(self) -> None:
        """Interrupt the dataflow; kill all its processes if it does not end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self._kill_all()

    def _kill_all(self) -> None:
        """Kill the process and all below it: nodes lead process groups of their own."""
        root = psutil.Process(self.process.pid)
        for process in [*root.children(recursive=True), root]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def end_what_is_left(self) -> None:
        """Kill leftover nodes, which would disturb the next measurement."""
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get("BENCH_RESULT", "").startswith(f"{self.folder}/"):
                    process.kill()


@contextmanager
def started(
    system: System, nodes: list[BenchNode], cores: set[int] | None = None
) -> Iterator[RunningDataflow]:
    """Start the dataflow on `cores` (None: any); it has ended when the block is left."""
    with tempfile.TemporaryDirectory(prefix="dora-bench-") as name:
        folder = Path(name)
        file = folder / "dataflow.yml"
        # JSON is YAML: no library is needed to write it.
        file.write_text(json.dumps({"nodes": [node.as_yaml(system, folder) for node in nodes]}))
        prefix = ["taskset", "-c", ",".join(map(str, sorted(cores)))] if cores else []
        with (folder / "terminal.txt").open("wb") as terminal:
            begun = time.monotonic()
            process = subprocess.Popen(
                [*prefix, *system.command, str(file)],
                cwd=folder,
                env=system.environment(),
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        dataflow = RunningDataflow(system, process, folder, begun)
        try:
            yield dataflow
        finally:
            dataflow.stop()
            dataflow.end_what_is_left()
