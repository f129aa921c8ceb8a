"""Success or failure of an ended process, with the message shown to users; pure."""

from __future__ import annotations

from typing import Literal

from dora_daemon.runner.machine.events import Exit
from dora_node_api.frozen import FrozenRecord

STOP_EXIT_CODES = {"SIGTERM": 143, "SIGINT": 130}
"""Signals, and the exit codes that stand for them, that count as success after a stop."""


class Ending(FrozenRecord):
    """Facts about an ended process."""

    exit: Exit
    stop_requested: bool = False
    kill_reason: str | None = None
    """Set when the runner sent SIGKILL; completes "was killed: ..."."""
    before_connecting: bool = False
    must_connect: bool = True
    """Whether exit code 0 before connecting is a failure, because other nodes wait for it."""
    explanation: str | None = None
    """Probable cause of the failure."""


class Verdict(FrozenRecord):
    """Outcome; ``message`` follows ``node "x"`` in a sentence."""

    outcome: Literal["success", "failed"]
    message: str = ""


SUCCESS = Verdict("success")


def judge(ending: Ending) -> Verdict:
    """Return whether a process has succeeded. The first rule that applies decides:

    - the runner has killed it: failure, with the reason
    - it was stopped: success with exit code 0, by SIGTERM or SIGINT, or with a code for these
    - it ended before it connected, and other nodes need it: failure
    - otherwise: success with exit code 0
    """
    status = ending.exit
    if ending.kill_reason is not None and status.signal == "SIGKILL":
        return Verdict("failed", f"was killed: {ending.kill_reason}")
    stopped = status.signal in STOP_EXIT_CODES or status.code in STOP_EXIT_CODES.values()
    if ending.stop_requested and (status.ok or stopped):
        return SUCCESS
    # Also after a stop: if one node fails to start, all are stopped, but several may have failed.
    missed = ending.must_connect or (ending.explanation is not None and not status.ok)
    if ending.before_connecting and missed:
        return Verdict("failed", _never_connected(ending))
    if status.ok:
        return SUCCESS
    text = describe(status)
    return Verdict("failed", f"{text}: {ending.explanation}" if ending.explanation else text)


def overwritten(problem: str) -> str:
    """Return why a node fails that has written wrong words into the status board."""
    return (
        f"it has overwritten its part of the dataflow's shared memory ({problem}); look for"
        " native code in it that writes beyond its buffers"
    )


def describe(status: Exit) -> str:
    """Return how a process ended, to follow its name: "exited with code 1"."""
    if status.out_of_memory and status.signal is not None:
        return "was killed by the kernel: out of memory"
    if status.out_of_memory:
        return f"exited with code {status.code}: the kernel killed a child of it: out of memory"
    if status.signal == "SIGKILL":
        return (
            "exited because of signal SIGKILL (not sent by dora; possible causes: the system ran"
            " out of memory, or a user killed it)"
        )
    if status.signal is not None:
        return f"exited because of signal {status.signal}"
    return f"exited with code {status.code}"


def cause_of(ending: Ending) -> str:
    """Return the cause in a few words, for a table."""
    status = ending.exit
    if ending.kill_reason is not None and status.signal == "SIGKILL":
        return f"killed: {ending.kill_reason}"
    if status.out_of_memory:
        return "out of memory"
    if status.signal == "SIGKILL":
        return "SIGKILL, not sent by dora"
    return f"exit code {status.code}" if status.signal is None else f"signal {status.signal}"


def _never_connected(ending: Ending) -> str:
    text = f"{describe(ending.exit)} before it connected to the dataflow"
    if ending.explanation:
        return f"{text}: {ending.explanation}"
    if ending.exit.ok:
        return (
            f"{text}: it never created a dora `Node()`, so the nodes that wait for it could not"
            " start"
        )
    return text
