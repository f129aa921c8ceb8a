"""The runner's socket for recorders."""

from __future__ import annotations

from contextlib import closing

import pytest
import yaml
from support.runner.ticking import ticking_alone
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.protocol import runner as protocol
from dora_config.protocol.recorders import RecordingRequest
from dora_node_api.protocol.runner_index import NODE_SOCKET
from dora_recordings.recorder import RecorderConnection

pytestmark = pytest.mark.integration


def test_recorders_read_without_debug_inspection(workspace: Workspace) -> None:
    with ticking_alone(workspace, debug=False) as run:
        path, dataflow_id = run.path / NODE_SOCKET, run.plan.dataflow_id
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
