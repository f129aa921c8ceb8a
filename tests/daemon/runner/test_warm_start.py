"""A whole dataflow whose nodes are forked."""

from __future__ import annotations

import os
import re
import signal
import sys

import psutil
import pytest
from support.dora import RunningDora, running_dora
from support.runner.runs import gone
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has zygotes"),
]

PARENT = """
    import os, sys, time
    forked = "pyarrow" in sys.modules
    from dora import Node
    node = Node()
    child = os.fork()
    if child == 0:
        os.setsid()
        while True:
            time.sleep(1)
    print("facts", node.node_id, forked, os.getpid(), os.getppid(), child, flush=True)
    for event in node:
        pass
"""
OPERATOR = """
    import os, sys
    from dora import DoraStatus
    class Operator:
        def __init__(self):
            print("facts op", "pyarrow" in sys.modules, os.getpid(), os.getppid(), 0, flush=True)
        def on_event(self, event, send_output):
            return DoraStatus.CONTINUE
"""


def facts(run: RunningDora, node: str, *, other_than: int = 0, forked: bool = True) -> list[int]:
    """Wait for the line of a node; return the pids of its process, its parent and its child."""

    def look() -> list[int] | None:
        found = re.findall(rf"facts {node} {forked} (\d+) (\d+) (\d+)", run.stdout)
        pids = [int(word) for word in found[-1]] if found else [other_than]
        return None if pids[0] == other_than else pids

    pids = wait_until(look, what=lambda: f"facts of {node}: {run.stdout}{run.stderr}")
    assert pids is not None
    return pids


def test_forked_nodes_restart_and_end_with_their_runner(workspace: Workspace) -> None:
    script = workspace.node("parent", PARENT)
    workspace.node("op", OPERATOR)
    inputs = {"tick": "dora/timer/secs/10"}
    node = {"path": "parent.py", "inputs": inputs, "restart_policy": "on-failure"}
    operator = {"id": "c", "operator": {"python": "op.py", "inputs": inputs}}
    program = {"id": "d", **node, "env": {"PYTHONUTF8": "1"}}
    nodes = [{"id": "a", **node}, {"id": "b", **node}, operator, program]
    path = workspace.dataflow({"nodes": nodes})
    with running_dora("run", path) as run:
        first = facts(run, "a")
        assert first[1] == run.pid
        shown = " ".join(psutil.Process(first[0]).cmdline())  # psutil cuts the text at spaces
        assert shown == f"{sys.executable} -u {script}"
        os.kill(first[0], signal.SIGSEGV)
        again = facts(run, "a", other_than=first[0])
        assert "SIGSEGV" in run.stdout + run.stderr
        others = [facts(run, name) for name in ("b", "op")]
        unforked = facts(run, "d", forked=False)
        (log,) = workspace.path.glob("out/*/log_d.*")
        wait_until(lambda: "its PYTHONUTF8 differs" in log.read_text(), what="reason in the log")
        assert "not forked" not in run.stdout + run.stderr
        children = psutil.Process(run.pid).children()
        zygotes = [one for one in children if "dora_node_api.zygote" in one.cmdline()]
        assert len(zygotes) == 1
        run.process.kill()
        run.process.wait()
        gone(first[2], again[0], again[2], *others[0], others[1][0], zygotes[0].pid)
        gone(unforked[0], unforked[2])
