"""How the end of a node is judged, in the words that users see; pure."""

from __future__ import annotations

from typing import Literal

from dora_daemon.runner.machine.events import Exit
from dora_node_api.frozen import Frozen

ENDED_AS_ASKED = {"SIGTERM": 143, "SIGINT": 130}
"""Signals, and the exit codes by which shells report them, that are no failure after a stop."""


class Ending(Frozen):
    """All that counts for the verdict on a process that ended."""

    exit: Exit
    stop_asked: bool = False
    """The runner had asked it to stop."""
    killed_because: str | None = None
    """Set when the runner sent SIGKILL; completes "was killed: ..."."""
    before_connecting: bool = False
    """It ended before it connected."""
    must_connect: bool = True
    """Others rely on it, so that ending with success is not enough."""
    explanation: str | None = None
    """Why it may not have connected."""


class Verdict(Frozen):
    outcome: Literal["success", "failed"]
    message: str = ""


SUCCESS = Verdict("success")


def judge(ending: Ending) -> Verdict:
    """The verdict on a process; ``message`` is what follows "node x ...".

    SIGTERM or SIGINT after a stop is success, a kill by the runner is a failure with its reason,
    exit code 0 is success unless the process never connected.
    """
    status = ending.exit
    if ending.killed_because is not None and status.signal == "SIGKILL":
        return Verdict("failed", f"was killed: {ending.killed_because}")
    if ending.stop_asked:
        if status.ok or status.signal in ENDED_AS_ASKED:
            return SUCCESS
        if status.code in ENDED_AS_ASKED.values():
            return SUCCESS
    # One that was asked to stop because another broke the start barrier may have the same trouble.
    missed = ending.must_connect or (ending.explanation is not None and not status.ok)
    if ending.before_connecting and missed:
        return Verdict("failed", _never_connected(ending))
    return SUCCESS if status.ok else Verdict("failed", describe(status))


def describe(status: Exit) -> str:
    """An exit in words."""
    if status.out_of_memory and status.signal is not None:
        return "was killed by the kernel: out of memory"
    if status.out_of_memory:
        return f"exited with code {status.code}: the kernel killed a process of it: out of memory"
    if status.signal == "SIGKILL":
        return (
            "exited because of signal SIGKILL (not sent by dora: perhaps the system ran out of"
            " memory, or somebody killed it)"
        )
    if status.signal is not None:
        return f"exited because of signal {status.signal}"
    return f"exited with code {status.code}"


def cause_of(ending: Ending) -> str:
    """The same in few words, for a list."""
    status = ending.exit
    if ending.killed_because is not None and status.signal == "SIGKILL":
        return f"killed: {ending.killed_because}"
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
