"""Rows of the fault table: a phase, a fault and its permitted effects, and how to run a row."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from support.dora import RunningDora
from support.fleets.fault_fleet import FLOWING, FaultFleet
from support.waiting import let_last, wait_until

Phase = Literal["preparing", "linking", "running", "stopping", "recovering"]
UNACKNOWLEDGED = 32
"""Messages of one queue that a link may have sent without an acknowledgement."""
MAX_RETURN = 6.0
"""Seconds from a daemon's connection to the first message of its new processes; usually 2."""


@dataclass(frozen=True)
class Row:
    phase: Phase
    """"linking": all nodes are ready, but the cable between the links is cut."""
    process: str
    """A process of FaultFleet.pids, or "network robot", "network station", "cable"."""
    kind: str
    """"kill", or "stop" or "cut" with seconds, for example "stop 5"."""
    then: Literal["runs", "fails", "either"] = "runs"
    """Outcome of a start; a running dataflow always recovers."""
    lost: int = 0
    """Messages that may be lost: received by the sink, or in queues of a dead runner."""
    again: int = 0
    """Messages that may arrive twice: not acknowledged by a link that died with the runner."""
    source_lost: bool = False
    """Whether the last messages of the source may be lost with its runner."""
    shows: str = ""
    """Status that must be listed during the fault; from then on Running is not allowed."""
    victim: str = "station"
    """While recovering: machine whose runner was killed before."""

    def __str__(self) -> str:
        return f"{self.phase}: {self.kind} {self.process}"


def play(fleet: FaultFleet, row: Row) -> None:
    """Run a row; raise AssertionError with the row and the state of the fleet."""
    fleet.monitor.violations.clear()
    began = time.monotonic()
    try:
        match row.phase:
            case "running":
                _while_running(fleet, row)
            case "recovering":
                _while_recovering(fleet, row)
            case "stopping":
                _while_stopping(fleet, row)
            case "preparing" | "linking":
                _while_starting(fleet, row)
        problems = [*_check(fleet, row), *fleet.monitor.violations]
        assert not problems, "\n".join(problems)
    except AssertionError as error:
        raise AssertionError(f"{row}: {error}\n{fleet.state()}") from error
    print(f"{row}: {time.monotonic() - began:.1f} s")


def _check(fleet: FaultFleet, row: Row) -> list[str]:
    return fleet.flow.check(lost=row.lost, again=row.again, source_lost=row.source_lost)


def start(fleet: FaultFleet) -> None:
    """Start the dataflow."""
    fleet.monitor.allow("", "start")
    fleet.starting().wait().succeeded()
    fleet.wait_until_it_runs()


def stop(fleet: FaultFleet) -> None:
    fleet.monitor.allow("Running Stopping Finished", "stop")
    fleet.stopping().wait().succeeded()
    assert fleet.summary().status == "Finished"
    fleet.wait_until_nothing_is_left()


@contextmanager
def fault(fleet: FaultFleet, row: Row, *, wait: bool = True) -> Iterator[None]:
    """Run the block during the fault. ``wait``: wait for a restarted daemon to connect."""
    kind, _, seconds = row.kind.partition(" ")
    match kind:
        case "kill":
            fleet.kill(row.process)
            yield
            fleet.bring_back(row.process, wait=wait)
        case "stop" | "cut":
            with fleet.stopped(row.process) if kind == "stop" else fleet.cut(row.process):
                until = time.monotonic() + float(seconds)
                yield
                let_last(max(0.0, until - time.monotonic()))
        case _:
            raise ValueError(row.kind)


def _while_running(fleet: FaultFleet, row: Row) -> None:
    fleet.monitor.allow(FLOWING, str(row))
    before = _lives(fleet)
    with fault(fleet, row):
        if row.shows:
            fleet.wait_for_status(row.shows)
            fleet.monitor.allow("Degraded Recovering", f"{row}, while it lasts")
            let_last(0.5)
        fleet.monitor.allow(FLOWING, f"{row}, afterwards")
    if row.process.startswith("machine") and row.kind == "kill":
        _comes_back_soon(fleet, row, before)
    fleet.wait_until_it_runs()


def _lives(fleet: FaultFleet) -> set[tuple[int, int]]:
    """Pairs of a reader's and a sender's process between which messages went."""
    return {(got.reader, got.what.life) for got in fleet.flow.got("steady")}


def _comes_back_soon(fleet: FaultFleet, row: Row, before: set[tuple[int, int]]) -> None:
    """Check the time from a daemon's connection to the first message of new processes."""
    since = time.monotonic()
    wait_until(
        lambda: _lives(fleet) - before,
        what=lambda: f"a message of the new processes\n{fleet.state()}",
    )
    took = time.monotonic() - since
    crowd = os.getloadavg()[0] / (os.cpu_count() or 1)  # runnable processes per core
    print(
        f"{row}: {took:.2f} s from the daemon's connection to the first message (load {crowd:.1f})"
    )
    assert took < MAX_RETURN * max(1.0, crowd)


def _while_recovering(fleet: FaultFleet, row: Row) -> None:
    fleet.monitor.allow(FLOWING, str(row))
    lost = "sink" if row.victim == "station" else "source"
    old = fleet.flow.living()[lost]
    fleet.flow.hold("prepare")
    fleet.kill(f"runner {row.victim}")
    wait_until(
        lambda: [pid for pid in fleet.flow.living()[lost] if pid not in old],
        what=lambda: f"the next {lost}\n{fleet.state()}",
    )
    fleet.wait_for_status("Recovering")
    fleet.monitor.allow("Degraded Recovering", f"{row}, while a node is not ready")
    with fault(fleet, row):
        pass
    fleet.monitor.allow(FLOWING, f"{row}, afterwards")
    fleet.flow.release()
    fleet.wait_until_it_runs()


def _while_stopping(fleet: FaultFleet, row: Row) -> None:
    fleet.monitor.allow("Running Stopping Finished Failed", str(row))
    fleet.flow.hold("stop")
    command = fleet.stopping()
    fleet.wait_for_status("Stopping")
    fleet.monitor.allow("Stopping Finished Failed", str(row))
    with fault(fleet, row):
        pass
    fleet.flow.release()
    ended = fleet.wait_for_status("Finished", "Failed")
    assert ended.status == "Finished" or ended.reason
    command.wait()
    fleet.wait_until_nothing_is_left()


def _while_starting(fleet: FaultFleet, row: Row) -> None:
    fleet.monitor.allow("", str(row))
    fleet.flow.hold("prepare")
    with ExitStack() as unlinked:
        if row.phase == "linking":  # from the beginning: links connect while nodes get ready
            unlinked.enter_context(fleet.cut("cable"))
        command = fleet.starting()
        fleet.monitor.allow("Starting Stopping Failed", str(row))
        fleet.wait_for_nodes()
        fleet.wait_until_links_listen()
        if row.phase == "linking":
            fleet.flow.release()
            let_last(0.5)  # an event that must not happen: no condition to wait for
        with fault(fleet, row):
            if row.then != "fails":
                fleet.monitor.allow(
                    "Starting Stopping Failed Running Degraded Recovering", str(row)
                )
        fleet.flow.release()
    _judge_start(fleet, row, command)


def _judge_start(fleet: FaultFleet, row: Row, command: RunningDora) -> None:
    done = command.wait()
    ended = fleet.wait_for_status("Running", "Failed")
    if ended.status == "Running" and row.then == "either":
        fleet.wait_until_it_runs()
        stop(fleet)
    elif row.then == "runs":
        done.succeeded()
        fleet.wait_until_it_runs()
        problems = _check(fleet, row)
        assert not problems, "\n".join(problems)
        stop(fleet)
    else:
        assert ended.status == "Failed"
        assert ended.reason
        done.exited(1)
        assert done.stderr.strip()
    fleet.wait_until_nothing_is_left()
