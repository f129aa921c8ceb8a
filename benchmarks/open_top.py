"""Measures what an open `dora top` costs: CPU of nodes, runner, daemon, coordinator and `top`.

    python benchmarks/open_top.py [--pairs 10] [--rate 200] [--seconds 10]

Each pair is a sender and a receiver of small messages. The same dataflow runs on without viewers,
with one, with ten and without again; per cent of one core in each phase.
"""

from __future__ import annotations

import argparse
import os
import pty
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import yaml

SENDER = """
import pyarrow as pa
from dora import Node
node = Node()
data = pa.array(range(16))
for event in node:
    if event["type"] == "INPUT":
        node.send_output("out", data)
"""
RECEIVER = """
from dora import Node
for event in Node():
    pass
"""
DORA = (sys.executable, "-m", "dora_config.launcher")
SETTLE = 4.0
PHASES = (0, 1, 10, 0)
"""Viewers; without any at both ends, which shows how much the machine itself varies."""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Run a coordinator and a daemon; yield the environment of their clients."""
    environ = {
        **os.environ,
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "DORA_COORDINATOR_PORT": "16413",
    }
    try:
        subprocess.run([*DORA, "up"], env=environ, check=True)
        yield environ
    finally:
        subprocess.run([*DORA, "down", "--force"], env=environ, check=False)


def write_dataflow(folder: Path, pairs: int, rate: int) -> Path:
    (folder / "sender.py").write_text(SENDER)
    (folder / "receiver.py").write_text(RECEIVER)
    nodes: list[dict[str, object]] = []
    for number in range(pairs):
        tick = {"tick": f"dora/timer/hz/{rate}"}
        sender = f"sender-{number}"
        nodes.append({"id": sender, "path": "sender.py", "inputs": tick, "outputs": ["out"]})
        reader = {"in": f"{sender}/out"}
        nodes.append({"id": f"receiver-{number}", "path": "receiver.py", "inputs": reader})
    path = folder / "dataflow.yml"
    path.write_text(yaml.safe_dump({"nodes": nodes}))
    return path


@contextmanager
def open_top(environ: dict[str, str]) -> Iterator[None]:
    """Show `dora top` on a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*DORA, "top"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environ, "COLUMNS": "160", "LINES": "50", "TERM": "xterm"},
        start_new_session=True,
    )
    drain = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        for one in (process, drain):
            one.kill()
            one.wait()
        os.close(ours)
        os.close(theirs)


def cpu_by_kind(folder: Path) -> dict[str, float]:
    """Return the CPU seconds of all processes of this cluster, by kind."""
    kinds = {
        "sender.py": "senders",
        "receiver.py": "receivers",
        "dora_daemon.runner": "runner",
        "daemon": "daemon",
        "coordinator": "coordinator",
        "top": "top",
    }
    found = dict.fromkeys(kinds.values(), 0.0)
    for process in psutil.process_iter():
        try:
            if process.environ().get("XDG_STATE_HOME") != str(folder):
                continue
            words = " ".join(process.cmdline())
            times = process.cpu_times()
        except psutil.Error:
            continue
        kind = next((kind for word, kind in kinds.items() if word in words), None)
        if kind is not None:
            found[kind] += times.user + times.system
    return found


def phase(folder: Path, environ: dict[str, str], viewers: int, seconds: float) -> dict[str, float]:
    """Return per cent of one core by kind of process."""
    with ExitStack() as stack:
        for _ in range(viewers):
            stack.enter_context(open_top(environ))
        time.sleep(SETTLE)
        before, begun = cpu_by_kind(folder), time.perf_counter()
        time.sleep(seconds)
        after, took = cpu_by_kind(folder), time.perf_counter() - begun
    return {kind: 100 * (after[kind] - before[kind]) / took for kind in after}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--rate", type=int, default=200, help="messages per second of each sender")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with cluster(folder) as environ:
            path = write_dataflow(folder, options.pairs, options.rate)
            subprocess.run([*DORA, "start", str(path), "--detach"], env=environ, check=True)
            found = [phase(folder, environ, viewers, options.seconds) for viewers in PHASES]
    print(f"{'% of a core':<14}" + "".join(f"{viewers:>7} top" for viewers in PHASES))
    for kind in found[0]:
        print(f"{kind:<14}" + "".join(f"{one[kind]:>11.1f}" for one in found))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all processes are ended
    sys.exit(main())
