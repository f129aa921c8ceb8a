"""Deterministic nodes have the same outputs in virtual time, in real time and from a recording."""

from __future__ import annotations

import pytest
from support.dora import run_dora
from support.workspace import Workspace

from dora_recordings.arrow_messages import decode
from dora_recordings.reading import Recording
from dora_testing import Flow, FlowError, from_recording

DATAFLOW = """
nodes:
  - id: counter
    path: counter.py
    inputs: {tick: dora/timer/millis/20}
    outputs: [number]
  - id: sums
    path: sums.py
    inputs: {number: counter/number}
    outputs: [sum]
"""
COUNTER = """
    import pyarrow as pa
    from dora import Node
    node = Node()
    for number in range(10):
        node.next()
        node.send_output("number", pa.array([number]), {"even": number % 2 == 0})
"""
SUMS = """
    import pyarrow as pa
    from dora import Node
    node = Node()
    total = 0
    for event in node:
        if event["type"] == "INPUT":
            total += event["value"][0].as_py()
            node.send_output("sum", pa.array([total]), event["metadata"])
"""


@pytest.mark.integration
def test_real_time_virtual_time_and_a_recording_are_equal(workspace: Workspace) -> None:
    path = workspace.dataflow(DATAFLOW)
    workspace.node("counter", COUNTER)
    workspace.node("sums", SUMS)
    file = workspace.path / "sums.mcap"
    run_dora("record", path, "-o", file, timeout=60).succeeded()
    recorded = [
        decode(message.schema, message.data)[0].to_pylist()
        for message in Recording(file).messages(["sums/sum"])
    ]
    assert Flow(path).run()["sums/sum"].values == recorded
    (workspace.path / "counter.py").unlink()
    again = Flow(path, replace={"counter": from_recording(file, ends=True)}).run()
    assert again["sums/sum"].values == recorded == [[n * (n + 1) // 2] for n in range(10)]
    assert [message.metadata["even"] for message in again["counter/number"]][:2] == [True, False]
    sent = [message.log_time for message in Recording(file).messages(["counter/number"])]
    assert again["counter/number"].times == pytest.approx([(at - sent[0]) / 1e9 for at in sent])


def test_missing_recording(workspace: Workspace) -> None:
    path = workspace.dataflow(DATAFLOW)
    workspace.node("sums", SUMS)
    with pytest.raises(FlowError, match=r"no.mcap: .*No such file"):
        Flow(path, replace={"counter": from_recording(workspace.path / "no.mcap")}).run()
