"""Measures what a user waits for on one machine, and what waiting dataflows use.

    python benchmarks/one_machine.py                              # all of it, about five minutes
    python benchmarks/one_machine.py --only commands,idle --repetitions 9

Coordinator and daemon are processes of their own with a home in a temporary folder. CPU is that of
the command alone, or of the processes that a row names; of repetitions the median is printed, and
the minimum, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from socket import create_server

import psutil

IDLER = "from dora import Node\nfor _ in Node():\n    pass\n"
ENDER = "from dora import Node\nNode()\n"
SOURCE = """
import time
from dora import Node
with Node() as node:
    outputs = [f"o{n}" for n in range(64)]
    begun = time.monotonic()
    rounds = 0
    while (now := time.monotonic()) < begun + 10:
        for name in outputs:
            node.send_output(name, b"12345678")
        rounds += 1
        time.sleep(max(0.0, begun + rounds / 200 - now))
    print(f"rounds a second: {rounds / 10}", flush=True)
"""
SINK = """
from dora import Node
received = sum(event["type"] == "INPUT" for event in Node())
print(f"received: {received}", flush=True)
"""
WATCH = 20.0
"""Seconds of an idle measurement."""


class Machine:
    """A home with a coordinator and a daemon."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        kept = {name: text for name, text in os.environ.items() if not name.startswith("XDG_")}
        run = home / "run"
        run.mkdir(mode=0o700)
        self.environ = kept | {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(run),
            "DORA_COORDINATOR_PORT": str(port),
        }

    def dora(self, *words: str) -> tuple[float, float, str]:
        """Run a command; return wall and CPU seconds, and its output. Raises on failure."""
        argv = [str(Path(sys.executable).with_name("dora")), *words]
        begun = time.perf_counter()
        with subprocess.Popen(
            argv,
            env=self.environ,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            shown = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(argv)}: exit code {process.returncode}\n{shown}")
        return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, shown

    def dataflow(self, name: str, nodes: Sequence[Mapping[str, object]]) -> str:
        """Write a dataflow file and return its name."""
        (self.home / f"{name}.yml").write_text(json.dumps({"nodes": nodes}))
        return f"{name}.yml"

    def node(self, name: str, text: str) -> str:
        (self.home / f"{name}.py").write_text(text)
        return f"{name}.py"

    def processes(self) -> dict[str, psutil.Process]:
        """Return coordinator, daemon and runner by name."""
        found: dict[str, psutil.Process] = {}
        modules = ("dora_coordinator.command", "dora_daemon.command", "dora_daemon.runner")
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                if process.environ().get("HOME") == str(self.home) and "--spare" not in words:
                    found |= {module: process for module in modules if module in words}
            except psutil.Error:
                continue
        return found


@contextmanager
def machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="d") as home:
        made = Machine(Path(home))
        try:
            yield made
        finally:
            made.dora("down", "--force")


def cpu_seconds(process: psutil.Process) -> float:
    """Return the time that the threads of a process have run; psutil counts in 10 ms."""
    threads = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def row(name: str, value: str) -> None:
    print(f"{name:44} {value}", flush=True)


def timed(name: str, repetitions: int, work: Callable[[], tuple[float, float, str]]) -> None:
    results = [work() for _ in range(repetitions)]
    walls, cpus = [one[0] for one in results], [one[1] for one in results]
    row(
        name,
        f"{statistics.median(walls):6.2f} s, CPU {statistics.median(cpus):.3f} s "
        f"(min {min(walls):.2f}, {min(cpus):.3f})",
    )


def commands(here: Machine, repetitions: int) -> None:
    def up() -> tuple[float, float, str]:
        here.dora("down", "--force")
        return here.dora("up")

    pair = here.dataflow("pair", [{"id": n, "path": here.node("ender", ENDER)} for n in "ab"])
    timed("dora up", repetitions, up)
    timed("dora list", repetitions, lambda: here.dora("list"))
    timed(
        "dora start --dry-run, 2 nodes", repetitions, lambda: here.dora("start", "--dry-run", pair)
    )
    timed("dora start --detach, 2 nodes", repetitions, lambda: here.dora("start", "--detach", pair))
    for count in (2, 20, 50):
        nodes = [{"id": f"n{n}", "path": "ender.py"} for n in range(count)]
        flow = here.dataflow(f"run{count}", nodes)
        timed(f"dora run, {count} nodes that end", repetitions, partial(here.dora, "run", flow))


def idle(here: Machine, repetitions: int) -> None:
    timer = {"tick": "dora/timer/secs/3600"}
    path = here.node("idler", IDLER)
    nodes = [{"id": f"n{n}", "path": path, "inputs": timer} for n in range(10)]
    here.dora("start", "--detach", here.dataflow("idle", nodes))
    time.sleep(5)
    found = here.processes()
    before = {name: cpu_seconds(process) for name, process in found.items()}
    time.sleep(WATCH)
    total_cpu = total_memory = 0.0
    for name, process in found.items():
        cpu = 100 * (cpu_seconds(process) - before[name]) / WATCH
        memory = process.memory_full_info().pss / 1e6
        total_cpu, total_memory = total_cpu + cpu, total_memory + memory
        row(f"idle, 10 nodes: {name}", f"{cpu:6.2f} % of a core, {memory:.0f} MB")
    row("idle, 10 nodes: together", f"{total_cpu:6.2f} % of a core, {total_memory:.0f} MB")
    here.dora("stop", "--all")


def nodes(here: Machine, repetitions: int) -> None:
    path = here.node("idler", IDLER)
    many = [
        {
            "id": f"n{n}",
            "path": path,
            "outputs": ["out"],
            "inputs": {"in": f"n{(n or 300) - 1}/out"},
        }
        for n in range(300)
    ]
    wall, cpu, _ = here.dora("start", "--detach", here.dataflow("many", many))
    row("dora start, 300 nodes", f"{wall:6.2f} s, CPU {cpu:.3f} s")
    runner = here.processes()["dora_daemon.runner"]
    row("dora start, 300 nodes: runner", f"CPU {cpu_seconds(runner):6.2f} s")
    before = cpu_seconds(runner)
    time.sleep(WATCH)
    row(
        "idle, 300 nodes: runner",
        f"{100 * (cpu_seconds(runner) - before) / WATCH:6.2f} % of a core",
    )
    wall, cpu, _ = here.dora("stop", "--all")
    row("dora stop, 300 nodes", f"{wall:6.2f} s, CPU {cpu:.3f} s")


def outputs(here: Machine, repetitions: int) -> None:
    names = [f"o{n}" for n in range(64)]
    source = {"id": "source", "path": here.node("source", SOURCE), "outputs": names}
    sink = {
        "id": "sink",
        "path": here.node("sink", SINK),
        "inputs": {name: f"source/{name}" for name in names},
    }
    shown = here.dora("run", here.dataflow("outputs", [source, sink]))[2]
    for line in shown.splitlines():
        if "rounds" in line or "received" in line:
            row("64 outputs at 200 Hz", line.split(": ", 1)[1])


def dataflows(here: Machine, repetitions: int) -> None:
    path = here.node("idler", IDLER)
    timer = {"tick": "dora/timer/secs/3600"}
    flow = here.dataflow("one", [{"id": n, "path": path, "inputs": timer} for n in "ab"])
    begun = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        cpus = list(
            pool.map(lambda n: here.dora("start", "--detach", "-n", f"f{n}", flow)[1], range(100))
        )
    wall = time.perf_counter() - begun
    row(
        "100 dataflows started, 4 at once",
        f"{wall:6.2f} s, CPU of a command {statistics.median(cpus):.3f} s",
    )
    for name, process in here.processes().items():
        row(f"100 dataflows: {name}", f"CPU {cpu_seconds(process):6.2f} s")
    timed("dora list, 100 dataflows", 3, partial(here.dora, "list"))
    wall, cpu, _ = here.dora("stop", "--all")
    row("100 dataflows stopped", f"{wall:6.2f} s, CPU {cpu:.3f} s")


SCENARIOS = {one.__name__: one for one in (commands, idle, nodes, outputs, dataflows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SCENARIOS), help="of " + ", ".join(SCENARIOS))
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    with machine() as here:
        here.dora("up")
        for name in given.only.split(","):
            SCENARIOS[name](here, given.repetitions)


if __name__ == "__main__":
    main()
