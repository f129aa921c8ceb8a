"""Success and failure of ended processes."""

from __future__ import annotations

import pytest

from dora_daemon.runner.machine.events import Exit
from dora_daemon.runner.machine.verdict import Ending, cause_of, judge

OK = Exit(code=0)


@pytest.mark.parametrize(
    ("ending", "outcome", "message"),
    [
        (Ending(OK), "success", ""),
        (Ending(Exit(code=3)), "failed", "exited with code 3"),
        (Ending(Exit(signal="SIGSEGV")), "failed", "exited because of signal SIGSEGV"),
        (Ending(Exit(signal="SIGKILL")), "failed", "out of memory"),
        # SIGTERM and SIGINT are failures unless a stop was requested.
        (Ending(Exit(signal="SIGTERM")), "failed", "exited because of signal SIGTERM"),
        (Ending(Exit(code=143)), "failed", "exited with code 143"),
        (Ending(Exit(signal="SIGTERM"), stop_requested=True), "success", ""),
        (Ending(Exit(signal="SIGINT"), stop_requested=True), "success", ""),
        (Ending(Exit(code=143), stop_requested=True), "success", ""),
        (Ending(Exit(code=130), stop_requested=True), "success", ""),
        (Ending(OK, stop_requested=True), "success", ""),
        (Ending(Exit(code=1), stop_requested=True), "failed", "exited with code 1"),
        (
            Ending(
                Exit(signal="SIGKILL"),
                stop_requested=True,
                kill_reason="it didn't react to a stop message in time (15 s)",
            ),
            "failed",
            "was killed: it didn't react to a stop message in time (15 s)",
        ),
        # it ended by itself before SIGKILL arrived
        (Ending(OK, stop_requested=True, kill_reason="late"), "success", ""),
        (Ending(OK, before_connecting=True), "failed", "before it connected"),
        (Ending(Exit(code=1), before_connecting=True), "failed", "exited with code 1 before"),
        (Ending(OK, before_connecting=True, explanation="-I hides it"), "failed", "-I hides it"),
        (
            Ending(Exit(signal="SIGTERM"), stop_requested=True, before_connecting=True),
            "success",
            "",
        ),
        (
            Ending(
                Exit(code=1), stop_requested=True, before_connecting=True, explanation="-I hides"
            ),
            "failed",
            "exited with code 1 before it connected to the dataflow: -I hides",
        ),
        # a program that no node waits for need not connect
        (Ending(OK, before_connecting=True, must_connect=False), "success", ""),
        (
            Ending(Exit(code=2), before_connecting=True, must_connect=False),
            "failed",
            "exited with code 2",
        ),
    ],
)
def test_verdict(ending: Ending, outcome: str, message: str) -> None:
    verdict = judge(ending)
    assert verdict.outcome == outcome
    assert message in verdict.message
    assert bool(verdict.message) == (outcome == "failed")


@pytest.mark.parametrize(
    ("ending", "cause", "sentence"),
    [
        (Ending(Exit(code=3)), "exit code 3", "exited with code 3"),
        (Ending(Exit(signal="SIGSEGV")), "signal SIGSEGV", "because of signal SIGSEGV"),
        (Ending(Exit(signal="40")), "signal 40", "exited because of signal 40"),
        (Ending(Exit(signal="SIGKILL")), "SIGKILL, not sent by dora", "not sent by dora"),
        (
            Ending(Exit(signal="SIGKILL", out_of_memory=True)),
            "out of memory",
            "was killed by the kernel: out of memory",
        ),
        (
            Ending(Exit(code=137, out_of_memory=True)),
            "out of memory",
            "exited with code 137: the kernel killed a child of it: out of memory",
        ),
        (
            Ending(Exit(signal="SIGKILL"), kill_reason="its process could not run for 5.0 s"),
            "killed: its process could not run for 5.0 s",
            "was killed: its process could not run for 5.0 s",
        ),
    ],
)
def test_cause_and_message(ending: Ending, cause: str, sentence: str) -> None:
    assert cause_of(ending) == cause
    assert sentence in judge(ending).message
