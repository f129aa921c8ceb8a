"""The runner's socket for inspectors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
import yaml
from support.runner.runs import BackgroundRun, background
from support.runner.ticking import TICKER
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.protocol import runner as protocol
from dora_config.protocol.recorders import RecordingRequest
from dora_daemon.inspection.runner_connection import (
    InspectionError,
    InspectorConnection,
    RunnerDisconnected,
)
from dora_daemon.process_tree.runner_index import NODE_SOCKET
from dora_daemon.recording.recorder import RecorderConnection
from dora_daemon.runner.nodes.inspection import MAX_INSPECTORS, MAX_QUEUE, MIN_QUEUE

pytestmark = pytest.mark.integration


@contextmanager
def ticking(workspace: Workspace, *, debug: bool) -> Iterator[BackgroundRun]:
    workspace.node("ticker", TICKER)
    inputs = {"tick": "dora/timer/millis/10"}
    ticker = {"id": "ticker", "path": "ticker.py", "inputs": inputs, "outputs": ["count"]}
    content = {"nodes": [ticker], "debug": {"enable_debug_inspection": debug}}
    with background(workspace, content) as run:
        run.wait_for_phase("running")
        yield run


def test_an_inspector_has_queues_of_its_own_that_end_with_it(workspace: Workspace) -> None:
    with ticking(workspace, debug=True) as run, ExitStack() as stack:
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


def test_without_debug_inspection_only_recorders_may_read(workspace: Workspace) -> None:
    with ticking(workspace, debug=False) as run:
        path, dataflow_id = run.path / NODE_SOCKET, run.plan.dataflow_id
        with pytest.raises(InspectionError, match="started without inspection"):
            InspectorConnection(path, dataflow_id, ())
        request = RecordingRequest(dataflow_id=dataflow_id, path="/unused")
        with closing(RecorderConnection(path, request)) as recorder:
            assert recorder.source.outputs == ("ticker/count",)
            (receiver,) = recorder.receivers.values()
            assert wait_until(receiver.receive, what="a message") is not None
        extra = run.plan.resolved.nodes[0].model_copy(update={"id": "extra"})
        assert isinstance(run.request(protocol.AddNode(node=extra)), protocol.Done)
        with closing(RecorderConnection(path, request)) as recorder:
            source = recorder.source
        assert source.outputs == ("ticker/count", "extra/count")
        nodes = yaml.safe_load(source.descriptor)["nodes"]
        assert [node["id"] for node in nodes] == ["ticker", "extra"]
