"""Runners that are stopped (SIGSTOP) or hang: requests to them time out."""

from __future__ import annotations

import os
import signal

import pytest
from support.fleets.daemons import counting, end_runners, is_running, pids, real_fleet
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_stop_ends_a_dataflow_whose_runner_does_not_answer(
    workspace: Workspace, force: tuple[str, ...]
) -> None:
    with real_fleet(workspace, None) as fleet:
        uuid = fleet.start(counting(workspace))
        fleet.wait_for_messages(uuid)
        os.kill(fleet.runner_pid(), signal.SIGSTOP)
        try:
            done = fleet.dora("stop", uuid, *force, code=1)
            assert "its runner did not answer and was killed" in done.stderr
            assert "not confirmed" not in done.stderr
            wait_until(lambda: not any(map(is_running, pids(workspace))), what="nodes to end")
            assert fleet.listed()[-1].status == "Failed"
            assert "did not answer" in (fleet.listed()[-1].reason or "")
        finally:
            end_runners()


def test_a_question_for_a_runner_that_does_not_answer_is_answered_with_a_sentence(
    workspace: Workspace,
) -> None:
    with real_fleet(workspace, None) as fleet:
        uuid = fleet.start(counting(workspace))
        fleet.wait_for_messages(uuid)
        runner = fleet.runner_pid()
        os.kill(runner, signal.SIGSTOP)
        try:
            done = fleet.dora("node", "restart", "counter", "--dataflow", uuid, code=1)
        finally:
            os.kill(runner, signal.SIGCONT)
        assert "the runner of that dataflow has not answered for 10 s" in done.stderr
        fleet.wait_for_messages(uuid)
        fleet.dora("stop", uuid)
