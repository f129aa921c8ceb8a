"""CPU time of a test in virtual time: 10,000 events through five nodes of the fixture `dora_flow`.

    python benchmarks/virtual_time.py [--repetitions 3]

A line has the CPU time of all processes (user and system), the wall time, and how many virtual
seconds pass in one second of wall time. The source sends at 1 kHz for two virtual seconds. A busy
machine needs up to twice the CPU time.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from dora_testing import Flow, from_function

RELAY = """
from dora import Node
node = Node()
for event in node:
    if event["type"] == "INPUT":
        node.send_output("out", event["value"])
"""
NODES = 5
MESSAGES = 2000
INTERVAL = 0.001
"""Virtual seconds between two messages of the source."""


def flow(folder: Path) -> Flow:
    """Return a chain: a source `n0`, and relays `n1` and so on."""
    (folder / "relay.py").write_text(RELAY)
    lines = ["nodes:", "  - {id: n0, path: none.py, outputs: [out]}"]
    for number in range(1, NODES + 1):
        inputs = f"{{in: n{number - 1}/out}}"
        lines.append(f"  - {{id: n{number}, path: relay.py, inputs: {inputs}, outputs: [out]}}")
    (folder / "chain.yml").write_text("\n".join(lines))
    source = from_function(lambda t: pa.array([t]), every=INTERVAL)
    return Flow(folder / "chain.yml", replace={"n0": source})


def cpu_seconds() -> float:
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, who))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    virtual = (MESSAGES - 1) * INTERVAL
    for _ in range(parser.parse_args().repetitions):
        with tempfile.TemporaryDirectory() as folder:
            cpu, wall = cpu_seconds(), time.monotonic()
            received = flow(Path(folder)).run(virtual)[f"n{NODES}/out"]
            cpu, wall = cpu_seconds() - cpu, time.monotonic() - wall
        assert len(received) == MESSAGES
        print(f"{cpu:.2f} s CPU, {wall:.2f} s, {virtual / wall:.2f} virtual seconds a second")


if __name__ == "__main__":
    main()
