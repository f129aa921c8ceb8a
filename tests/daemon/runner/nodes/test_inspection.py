"""The runner's socket for inspectors."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing

import pytest
from support.runner.ticking import ticking_alone
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.protocol import runner as protocol
from dora_daemon.inspection.runner_connection import (
    InspectionError,
    InspectorConnection,
    RunnerDisconnected,
)
from dora_daemon.runner.nodes.inspection import MAX_INSPECTORS, MAX_QUEUE, MIN_QUEUE
from dora_node_api.protocol.runner_index import NODE_SOCKET

pytestmark = pytest.mark.integration


def test_an_inspector_has_queues_of_its_own_that_end_with_it(workspace: Workspace) -> None:
    with ticking_alone(workspace, debug=True) as run, ExitStack() as stack:
        path = run.path / NODE_SOCKET

        def descriptors() -> int:
            return len(os.listdir(f"/proc/{run.pid()}/fd"))

        with pytest.raises(RunnerDisconnected):
            InspectorConnection(path, "another dataflow", ())
        first = InspectorConnection(path, run.plan.dataflow_id, ())
        before = descriptors()
        with closing(
            InspectorConnection(
                path, run.plan.dataflow_id, ("ticker/count", "ticker/none", "absent/x")
            )
        ) as side:
            assert side.problems == [
                "output ticker/none does not exist on this machine",
                "output absent/x does not exist on this machine",
            ]
            (receiver,) = side.receivers.values()
            delivery = wait_until(receiver.receive, what="a message")
            assert delivery is not None
            assert delivery.nbytes > 0
            del delivery
            assert run.request(protocol.GetStatistics()).edges == ()
            assert receiver.spec.bound == MIN_QUEUE  # the size of its messages was unknown
            with closing(
                InspectorConnection(path, run.plan.dataflow_id, ("ticker/count",))
            ) as second:
                assert second.receivers["ticker/count"].spec.bound == MAX_QUEUE
        # the sender has a segment since its first reader
        wait_until(lambda: descriptors() <= before + 1, what="the queue to be closed")
        for _ in range(MAX_INSPECTORS - 1):
            stack.enter_context(closing(InspectorConnection(path, run.plan.dataflow_id, ())))
        with pytest.raises(InspectionError, match="at most 16 inspectors per dataflow"):
            InspectorConnection(path, run.plan.dataflow_id, ())
        first.close()


def test_without_debug_inspection_inspectors_are_refused(workspace: Workspace) -> None:
    with (
        ticking_alone(workspace, debug=False) as run,
        pytest.raises(InspectionError, match="started without inspection"),
    ):
        InspectorConnection(run.path / NODE_SOCKET, run.plan.dataflow_id, ())
