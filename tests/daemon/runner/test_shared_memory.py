"""Shared memory: nodes that overwrite the status board fail alone; a busy runner delays nothing."""

from __future__ import annotations

import os
import signal

import pytest
from support.runner.runs import background, gone, run_flow
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.protocol.runner import AcknowledgeResult, StopAllNodes
from dora_config.protocol.runner_events import NodeRestarting

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

COUNTER = """
    import pathlib, sys, time
    from dora import Node
    node = Node()
    mark = pathlib.Path(sys.argv[1])
    number = 0
    while number < 500 or not mark.exists():
        node.send_output("number", number.to_bytes(4, "little"))
        number += 1
        time.sleep(0.001)
    print(number)
"""
"""Sends numbers until the vandal has been replaced."""

READER = """
    from dora import Node
    got = []
    for event in Node():
        if event["type"] == "INPUT":
            got.append(int.from_bytes(event["value"].to_pylist(), "little"))
        elif event["type"] == "INPUT_CLOSED":
            print("closed")
    print(len(got), got == sorted(set(got)), got[-1])
"""

VANDAL = """
    import gc, pathlib, sys, time
    from dora import Node
    from dora_node_api.transport.consumer.receiving import Receiver
    from dora_node_api.transport.shared.board import Board
    from dora_node_api.transport.producer.route import Route
    from dora_node_api.transport.shared import layout
    does, mark = sys.argv[1], pathlib.Path(sys.argv[2])
    node = Node()
    looked = time.monotonic() + 2.5  # the runner has looked at the counters
    again = mark.with_suffix(".first").exists()
    for count, event in enumerate(node):
        if event["type"] != "INPUT":
            continue
        node.send_output("same", event["value"])
        if again:
            mark.touch()
        elif count > 50 and time.monotonic() > looked:
            mark.with_suffix(".first").touch()
            kind = {"all": Board, "inputs": Receiver}.get(does.split()[0], Route)
            found = next(o for o in gc.get_objects() if type(o) is kind)
            byte = b"\\xff" if "ones" in does else b"\\0"
            if kind is Board:
                found._memory[:] = byte * found.size
            elif kind is Receiver:
                found._words[: layout.P_SENT] = memoryview(byte * 8 * layout.P_SENT).cast("Q")
            else:
                count = layout.EDGE_WORDS - layout.P_SENT
                found.words[layout.P_SENT :] = memoryview(byte * 8 * count).cast("Q")
            if not does.endswith("and goes on"):
                time.sleep(100)
"""


@pytest.mark.parametrize(
    "does",
    [
        "all zeros",
        "inputs ones and goes on",
        "inputs zeros",
        "inputs ones",
        "outputs zeros",
        "outputs ones",
    ],
)
def test_a_node_that_overwrites_the_board_fails_alone(workspace: Workspace, does: str) -> None:
    for name, program in (("counter", COUNTER), ("reader", READER), ("vandal", VANDAL)):
        workspace.node(name, program)
    mark = workspace.path / "mark"
    lossless = {"queue_policy": "backpressure", "queue_size": 5}
    content = {
        "nodes": [
            {"id": "counter", "path": "counter.py", "args": f"{mark}", "outputs": ["number"]},
            {
                "id": "reader",
                "path": "reader.py",
                "inputs": {"number": {"source": "counter/number", **lossless}},
            },
            {
                "id": "vandal",
                "path": "vandal.py",
                "args": f"'{does}' {mark}",
                "restart_policy": "on-failure",
                "inputs": {"number": "counter/number"},
                "outputs": ["same"],
            },
            {"id": "after", "path": "reader.py", "inputs": {"number": "vandal/same"}},
            {
                "id": "lossless",
                "path": "reader.py",
                "inputs": {"number": {"source": "vandal/same", **lossless}},
            },
        ]
    }
    ran = run_flow(workspace, content)
    (sent,) = (int(line) for line in ran.lines("counter") if line.isdigit())
    assert ran.lines("reader") == ["closed", f"{sent} True {sent - 1}"]
    for name in ("after", "lossless"):
        closed, summary = ran.lines(name)
        assert closed == "closed"
        assert summary.endswith(f"True {sent - 1}"), (
            "the restarted vandal sends to all of its readers"
        )
    assert all(ran.outcome(n) == "success" for n in ("counter", "reader", "vandal", "after"))
    (why,) = {event.reason for event in ran.of(NodeRestarting)}
    expected = "signal SIGSEGV" if does == "all zeros" else "it has overwritten its part"
    assert expected in why


def test_an_edge_that_either_end_may_have_overwritten_is_renewed(workspace: Workspace) -> None:
    """Numbers that a reader copies from records: its sender may have sent wrong ones."""
    workspace.node("counter", COUNTER)
    workspace.node(
        "vandal",
        """
        import gc, pathlib, sys, time
        from dora import Node
        from dora_node_api.transport.consumer.receiving import Receiver
        from dora_node_api.transport.shared import layout
        node = Node()
        for _ in range(10):
            node.next()
        (found,) = (one for one in gc.get_objects() if type(one) is Receiver)
        wrong = found._words[layout.P_SENT] + 100_000
        found._words[layout.C_LAST_DATA] = found._words[layout.C_SETTLED] = wrong
        del found
        time.sleep(5)  # the runner looks at the counters every 2 s
        pathlib.Path(sys.argv[1]).touch()
        got = [event["value"].to_pylist() for event in node if event["type"] == "INPUT"]
        print(int.from_bytes(got[-1], "little"))
        """,
    )
    mark = f"{workspace.path / 'mark'}"
    counter = {"id": "counter", "path": "counter.py", "args": mark, "outputs": ["number"]}
    number = {"number": "counter/number"}
    vandal = {"id": "vandal", "path": "vandal.py", "args": mark, "inputs": number}
    ran = run_flow(workspace, {"nodes": [counter, vandal]})
    assert all(ran.outcome(n) == "success" for n in ("counter", "vandal"))
    (sent,) = (int(line) for line in ran.lines("counter") if line.isdigit())
    assert ran.lines("vandal") == [f"{sent - 1}"]
    (warning,) = [line for line in ran.lines(None) if "shared memory" in line]
    assert "counter/number -> vandal/number" in warning
    assert "the input has a new queue, the messages in the old one are lost" in warning


def test_messages_need_no_answer_of_a_busy_runner(workspace: Workspace) -> None:
    """Its start does not delay first events, which would drop what comes after them."""
    workspace.node(
        "source",
        """
        import pathlib, time
        from dora import Node
        node = Node()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        node.send_output("number", b"\\x07")
        node.next()
        """,
    )
    workspace.node(
        "reader",
        """
        import pathlib
        from dora import Node
        for event in Node():
            if event["type"] == "INPUT":
                pathlib.Path("got").write_bytes(bytes(event["value"].to_pylist()))
        """,
    )
    nodes = [
        {"id": "reader", "path": "reader.py", "inputs": {"number": "source/number"}},
        {"id": "source", "path": "source.py", "outputs": ["number"]},
    ]
    with background(workspace, {"nodes": nodes}) as run:
        run.wait_for_phase("running")
        os.kill(run.pid(), signal.SIGSTOP)
        try:
            (workspace.path / "go").touch()
            wait_until((workspace.path / "got").exists, what="the message")
        finally:
            os.kill(run.pid(), signal.SIGCONT)
        run.request(StopAllNodes(grace=2.0))
        run.wait_for_phase("finished")
        run.request(AcknowledgeResult())
        gone(run.pid())
