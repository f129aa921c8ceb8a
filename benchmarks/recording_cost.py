"""The cost of a recording: latency that it adds to an edge, and processor time of the recorder.

    python benchmarks/recording_cost.py [--quick]

Latency: round trips of two nodes, of which both edges are recorded, with and without `dora record`,
one after the other in each repetition. Processor time: a node sends random bytes, which do not
compress, at a pace; the recorder's processor time is divided by what it wrote.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from measure.dataflow import BenchNode, started
from measure.systems import System, ours

SIZES = (64, 64 << 10, 1 << 20)
VOLUMES = ((1 << 10, 1000.0), (64 << 10, 200.0), (1 << 20, 30.0))
"""Bytes of a message, and messages per second."""
POLL = 0.02


@dataclass(frozen=True)
class Recorded(System):
    """Runs dataflows with `dora record`."""

    file: str = ""

    @property
    def command(self) -> list[str]:
        return [str(self.programs / "dora"), "record", "-o", self.file]


def recorded(file: Path) -> Recorded:
    return Recorded("recorded", ours().programs, file=str(file))


def round_trips(size: int, seconds: float) -> list[BenchNode]:
    settings: dict[str, str | int | float] = {"SIZE": size, "SECONDS": seconds, "MOST": 100_000}
    return [
        BenchNode("ping", "ping.py", {"pong": "pong/pong"}, ("ping",), settings),
        BenchNode("pong", "pong.py", {"ping": "ping/ping"}, ("pong",)),
    ]


def median_us(system: System, nodes: list[BenchNode]) -> float:
    """Return the median round trip.

    The nodes send faster than a disk may record: lost messages, for which the command fails, do not
    matter here.
    """
    with started(system, nodes) as dataflow:
        dataflow.wait(60)
        trips: list[int] = dataflow.result("ping")["trips_ns"]
    return statistics.median(trips) / 1000


def measure_latency(size: int, seconds: float, repetitions: int) -> None:
    without, added = [], []
    for _ in range(repetitions):
        plain = median_us(ours(), round_trips(size, seconds))
        with tempfile.TemporaryDirectory() as folder:
            system = recorded(Path(folder) / "r.mcap")
            both = median_us(system, round_trips(size, seconds))
        without.append(plain / 2)
        added.append((both - plain) / 2)
    print(
        f"latency of an edge, {size:>8} bytes: {statistics.median(without):8.1f} us,"
        f" recorded {statistics.median(added):+8.1f} us",
        flush=True,
    )


def measure_volume(size: int, rate: float, seconds: float) -> None:
    settings: dict[str, Any] = {"SIZE": size, "SECONDS": seconds, "PACE": 1 / rate}
    source = BenchNode("source", "source.py", {}, ("data",), {**settings, "MOST": 1 << 30})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "r.mcap"
        with started(recorded(file), [source]) as dataflow:
            used = _cpu_of_recorder(dataflow.process.pid)
            code = dataflow.wait(60)
            sent = dataflow.result("source")["series"][0]["sent"]
        megabytes = sent * size / 1e6
    lost = "" if code == 0 else ", messages were lost"
    print(
        f"recorder, {size:>8} bytes at {rate:4.0f}/s: {used * 1e3 / megabytes:7.2f} ms of CPU a MB,"
        f" {used * 1e6 / sent:6.0f} us per message, {used / seconds * 100:5.1f} % of a core{lost}",
        flush=True,
    )


def _cpu_of_recorder(pid: int) -> float:
    """Return the processor seconds of the recorder of a command, once it has ended."""
    seconds = 0.0
    with suppress(psutil.NoSuchProcess):
        command = psutil.Process(pid)
        recorder = None
        while command.is_running() and command.status() != psutil.STATUS_ZOMBIE:
            if recorder is None:
                recorder = _recorder_of(command)
            else:
                with suppress(psutil.NoSuchProcess):
                    times = recorder.cpu_times()
                    seconds = times.user + times.system or seconds
            time.sleep(POLL)
    return seconds


def _recorder_of(command: psutil.Process) -> psutil.Process | None:
    for child in command.children():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if "dora_recordings.recorder" in child.cmdline():
                return child
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    seconds = 1.0 if quick else 4.0
    for size in SIZES:
        measure_latency(size, seconds, 1 if quick else 3)
    for size, rate in VOLUMES:
        measure_volume(size, rate, 2 * seconds)


if __name__ == "__main__":
    main()
