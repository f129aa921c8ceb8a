"""What forked nodes and the spare runner save: `dora run`, `dora start`, restarts, memory.

    python benchmarks/warm_start.py [--repetitions 5] [--nodes 2,20,50]

Both ways run one after the other within each repetition. A line has the minimum and the median of
each way, and the median of the ratios within a repetition; CPU is user and system time of all
processes of the command, which a busy machine changes less than wall time.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

DORA = str(Path(sys.executable).with_name("dora"))
WAYS = {
    "programs": {"DORA_NODE_ZYGOTE": "0", "DORA_SPARE_RUNNER": "0"},
    "warm": {"DORA_NODE_ZYGOTE": "1", "DORA_SPARE_RUNNER": "1"},
}
ENDING = "from dora import Node\nNode()\n"
IDLE = "import pyarrow\nfrom dora import Node\nfor event in Node():\n    pass\n"
SENDER = (
    "from dora import Node\nnode = Node()\nnode.send_output('x', b'1')\nfor _ in node:\n    pass\n"
)
RECEIVER = (
    "import time\nfrom dora import Node\nnode = Node()\nfor event in node:\n"
    "    if event['type'] == 'INPUT':\n        open('first', 'a').write(f'{time.time()}\\n')\n"
)
TIMER = "inputs: {tick: dora/timer/hz/50}"
SPARE_SECONDS = 14.0
PORT = "6913"


def write(folder: Path, name: str, *nodes: str) -> Path:
    """Write a dataflow of these nodes, in YAML flow style."""
    path = folder / name
    path.write_text("nodes:\n" + "".join(f"  - {{{node}}}\n" for node in nodes))
    return path


def call(way: str, *words: str) -> None:
    """Run a command of dora; it has to succeed."""
    environ = {**os.environ, **WAYS[way]}
    subprocess.run([DORA, *words], env=environ, check=True, capture_output=True)


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.002)


@contextmanager
def running(way: str, path: Path) -> Iterator[psutil.Process]:
    """Run a dataflow with `dora run` until the end of the block."""
    environ = {**os.environ, **WAYS[way]}
    with subprocess.Popen(
        [DORA, "run", path], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        yield psutil.Process(process.pid)
        process.send_signal(signal.SIGINT)


def measure_run(way: str, path: Path) -> dict[str, float]:
    """Return wall and CPU seconds of a run to its end."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    call(way, "run", str(path))
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall s": wall, "CPU s": cpu}


def measure_restart(way: str, folder: Path) -> dict[str, float]:
    """Return the time from SIGKILL of a node to the next message that it receives."""
    nodes = [f"id: {name}, path: receiver.py, restart_policy: always, {TIMER}" for name in "ab"]
    lines = folder / "first"
    lines.unlink(missing_ok=True)
    with running(way, write(folder, "restart.yml", *nodes)) as runner:
        wait_for(lambda: lines.exists() and lines.read_text().count("\n") > 20)
        victims = [one for one in runner.children() if any("receiver" in w for w in one.cmdline())]
        for victim in victims:
            victim.suspend()
        lines.write_text("")
        killed = time.time()
        victims[0].kill()
        wait_for(lambda: "\n" in lines.read_text())
        first = float(lines.read_text().split()[0])
        for victim in victims[1:]:
            victim.resume()
    return {"s to the next message": first - killed}


def measure_memory(way: str, path: Path, nodes: int) -> dict[str, float]:
    """Return the proportional set size of a runner and its idle nodes."""
    with running(way, path) as runner:

        def idle() -> list[psutil.Process]:
            found = runner.children()
            return found if sum("idle" in str(one.cmdline()) for one in found) == nodes else []

        wait_for(idle)
        time.sleep(2.0)  # until they have imported everything
        every = [runner, *idle()]
        return {"PSS MB": sum(one.memory_full_info().pss for one in every) / 1e6}


def measure_start(way: str, path: Path) -> dict[str, float]:
    """Return the time from `dora start` to the first message, with a daemon that waits."""
    call(way, "up")
    first = path.with_name("first")
    first.unlink(missing_ok=True)
    try:
        time.sleep(SPARE_SECONDS)  # until there is a spare runner
        started = time.time()
        call(way, "start", str(path), "--detach", "--name", "bench")
        wait_for(lambda: first.exists() and first.read_text())
        return {"s to the first message": float(first.read_text().split()[0]) - started}
    finally:
        call(way, "stop", "bench")
        call(way, "down")


def compare(name: str, repetitions: int, measure: Callable[[str], dict[str, float]]) -> None:
    """Measure both ways in turn and print a line for each quantity."""
    found = [{way: measure(way) for way in WAYS} for _ in range(repetitions)]
    for what in found[0]["warm"]:
        texts = []
        for way in WAYS:
            values = [one[way][what] for one in found]
            texts.append(f"{way} {min(values):8.3f} {statistics.median(values):8.3f}")
        ratio = statistics.median(one["warm"][what] / one["programs"][what] for one in found)
        print(f"{name:16} {what:24} {'   '.join(texts)}   ratio {ratio:.2f}", flush=True)


def main() -> None:
    """Measure everything in a folder and a home that are removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--nodes", default="2,20,50")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update(HOME=name, XDG_STATE_HOME=name, XDG_CONFIG_HOME=name)
        os.environ["DORA_COORDINATOR_PORT"] = PORT
        for file, text in (
            ("ending", ENDING),
            ("arrow", f"import pyarrow\n{ENDING}"),
            ("idle", IDLE),
            ("sender", SENDER),
        ):
            (folder / f"{file}.py").write_text(text)
        (folder / "receiver.py").write_text(RECEIVER)
        times = options.repetitions
        print("minimum and median of each way")
        for count in map(int, options.nodes.split(",")):
            for kind in ("ending", "arrow"):
                nodes = [f"id: n{number}, path: {kind}.py" for number in range(count)]
                path = write(folder, f"run{count}{kind}.yml", *nodes)
                compare(f"run {count} {kind}", times, partial(measure_run, path=path))
        compare("restart", times, lambda way: measure_restart(way, folder))
        idle = [
            f"id: n{number}, path: idle.py, inputs: {{t: dora/timer/secs/60}}"
            for number in range(10)
        ]
        path = write(folder, "idle.yml", *idle)
        compare("idle 10", min(times, 2), lambda way: measure_memory(way, path, 10))
        two = write(
            folder, "start.yml",
            "id: s, path: sender.py, outputs: [x], inputs: {t: dora/timer/secs/60}",
            "id: r, path: receiver.py, inputs: {x: s/x}",
        )  # fmt: skip
        compare("start 2", times, lambda way: measure_start(way, two))


if __name__ == "__main__":
    main()
