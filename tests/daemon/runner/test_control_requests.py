"""Requests on the control socket: status, statistics and changes of a running dataflow."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.runner.log_files import texts
from support.runner.runs import (
    LISTENER,
    SLEEPER,
    BackgroundRun,
    background,
    gone,
    is_running,
    make_plan,
)
from support.runner.ticking import TICKER, TICKING, done, finish, prepared, refused, resolved
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.ids import log_file_name
from dora_config.protocol import runner as protocol
from dora_daemon.out_dir import log_dir
from dora_daemon.process_tree.runtime_dir import RuntimeDir, runtime_root, sweep
from dora_daemon.runner.background import LATE_SECONDS, main
from dora_daemon.runner.service import Runner
from dora_node_api.protocol.control_socket import connect_unix

pytestmark = pytest.mark.integration


def edge(run: BackgroundRun, target: str) -> protocol.EdgeStatus | None:
    statistics = run.request(protocol.GetStatistics())
    return next((e for e in statistics.edges if e.target == target), None)


def test_status_and_statistics(workspace: Workspace) -> None:
    with background(workspace, prepared(workspace), name="demo") as run:
        run.wait_for_phase("running")

        def flowing() -> bool:
            found = edge(run, "listener/count")
            return found is not None and found.received > 5

        wait_until(flowing, what="messages")
        found = edge(run, "listener/count")
        assert found is not None
        assert found.source == "ticker/count"
        assert found.sent == found.received + found.dropped + found.queued
        assert found.latency_us["p50"] > 0
        status = run.status()
        assert status.name == "demo"
        assert [n.status for n in status.nodes] == ["Running", "Running"]
        assert all(n.pid is not None and is_running(n.pid) for n in status.nodes)
        assert all((n.memory_bytes or 0) > 1_000_000 for n in status.nodes)
        wait_until(
            lambda: all(n.cpu_percent is not None for n in run.status().nodes),
            what="a second sample",
        )
        with without_descriptors(run.pid()):
            wait_until(
                lambda: all(n.memory_bytes is None for n in run.status().nodes),
                what="a sample without descriptors",
            )
        assert finish(run).ok


def test_no_descriptor_for_modules_imported_later(workspace: Workspace) -> None:
    with background(workspace, prepared(workspace)) as run:
        run.wait_for_phase("running")
        with without_descriptors(run.pid()):
            time.sleep(1.5 * LATE_SECONDS)
        assert run.status().state.phase == "running"
        assert finish(run).ok


def test_events_follow_the_handshake(workspace: Workspace) -> None:
    with background(workspace, prepared(workspace)) as run:
        run.wait_for_phase("running")
        done(run, protocol.RestartNode(node="ticker", grace=1.0))
        assert not run.notices
        run.request(protocol.Handshake())
        finish(run)
        kinds = [n.kind for n in run.notices]
        assert "log" not in kinds
        assert "dataflow_stopping" in kinds
        assert kinds[-2:] == ["dataflow_finished", "state"]


def test_a_node_that_cannot_be_spawned_again_is_reported_at_once(workspace: Workspace) -> None:
    program = workspace.file("program", "#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    content = {"nodes": [{"id": "program", "path": "./program"}]}
    with background(workspace, content) as run:
        run.wait_for_state("program", "Starting")
        program.unlink()
        message = refused(run, protocol.RestartNode(node="program", grace=1.0))
        assert message == 'node "program" did not start again; see its log'
        done(run, protocol.AcknowledgeResult())
        gone(run.pid())


def test_one_node_is_stopped_and_restarted(workspace: Workspace) -> None:
    with background(workspace, prepared(workspace)) as run:
        run.wait_for_phase("running")
        first = run.wait_for_state("ticker", "Running")
        done(run, protocol.HoldNode(node="ticker", reason="arm is moving"))
        for change in (
            protocol.RestartNode(node="ticker", hold_limit=0.0),
            protocol.StopNode(node="ticker", hold_limit=0.0),
            protocol.ReloadCode(node="ticker", hold_limit=0.0),
        ):
            assert refused(run, change) == (
                'node "ticker" holds updates: arm is moving; not changed within 0 s (--force'
                " changes it at once)"
            )
        done(run, protocol.RestartNode(node="ticker", grace=1.0, force=True))
        done(run, protocol.HoldNode(node="ticker"))
        again = run.wait_for_state("ticker", "Running")
        assert again.pid != first.pid
        assert again.restarts == 1
        assert not is_running(first.pid or 0)
        assert run.request(protocol.GetNodes()).stopped == ()
        done(run, protocol.StopNode(node="ticker", grace=1.0))
        assert run.wait_for_state("ticker", "Stopped").pid is None
        assert run.request(protocol.GetNodes()).stopped == ("ticker",)
        run.wait_for_state("listener", "Finished")
        assert "does not exist" in refused(run, protocol.StopNode(node="absent"))
        run.wait_for_phase("finished")
        done(run, protocol.AcknowledgeResult())


def test_a_stopped_node_is_not_started_with_the_others(workspace: Workspace) -> None:
    content = prepared(workspace)
    sleeper = {"id": "sleeper", "path": "sleeper.py", "inputs": {"t": "dora/timer/secs/1000"}}
    content = {"nodes": [*content["nodes"], sleeper]}
    with background(workspace, content, stopped=("ticker",)) as run:
        run.wait_for_phase("running")
        run.wait_for_state("listener", "Finished")  # its input has ended
        assert run.wait_for_state("ticker", "Stopped").pid is None
        assert run.request(protocol.GetNodes()).stopped == ("ticker",)
        done(run, protocol.RestartNode(node="ticker", grace=1.0))
        run.wait_for_state("ticker", "Running")
        assert run.request(protocol.GetNodes()).stopped == ()
        finish(run)


def test_a_published_sample_is_sent_by_the_node(workspace: Workspace) -> None:
    workspace.node("sleeper", SLEEPER)
    workspace.node("listener", LISTENER)
    # a node that waits for events and a node that only sends both publish
    workspace.node(
        "sender",
        """
        import time
        from dora import Node
        node = Node()
        while True:
            node.send_output("other", b"")
            time.sleep(0.01)
        """,
    )
    speakers: list[dict[str, Any]] = [
        {"id": "waits", "path": "listener.py", "inputs": {"t": "dora/timer/secs/100"}},
        {"id": "sends", "path": "sender.py"},
        {"id": "prints", "path": "listener.py", "send_stdout_as": "out"},
        {"id": "away", "path": "dynamic"},
    ]
    nodes = [{**speaker, "outputs": ["out", "other"]} for speaker in speakers]
    inputs = {speaker["id"]: f"{speaker['id']}/out" for speaker in speakers}
    reader = {"id": "listener", "path": "listener.py", "inputs": inputs}
    with background(workspace, {"nodes": [*nodes, reader]}) as run:
        run.wait_for_phase("running")
        lines = printed_by(run, "listener")
        for name, data in (("waits", [1, 2]), ("sends", "x")):
            request = protocol.Publish(node=name, output="out", data=data, metadata={"k": 1})
            done(run, request)

        expected = {"INPUT waits [1, 2]", "INPUT sends ['x']"}
        wait_until(lambda: expected <= set(lines()), what="the published samples")
        done(run, protocol.Publish(node="waits", output="out", data=[1, "x"]))
        assert "no output" in refused(run, protocol.Publish(node="waits", output="nil"))
        assert "from printed lines" in refused(run, protocol.Publish(node="prints", output="out"))
        assert "not connected" in refused(run, protocol.Publish(node="away", output="out"))
        finish(run)
    logs = workspace.path.glob("out/*/log_waits.jsonl")
    assert "published on output `out` was not sent" in next(logs).read_text()


def test_a_node_is_added_connected_disconnected_and_removed(workspace: Workspace) -> None:
    with background(workspace, prepared(workspace)) as run:
        run.wait_for_phase("running")
        extra = resolved(workspace, id="extra", path="listener.py", inputs={"n": "ticker/count"})
        done(run, protocol.AddNode(node=extra))
        run.wait_for_state("extra", "Running")
        assert "already" in refused(run, protocol.AddNode(node=extra))
        wait_until(
            lambda: (found := edge(run, "extra/n")) is not None and found.received > 3,
            what="messages at the added node",
        )
        wiring: dict[str, Any] = {
            "source": "ticker",
            "output": "count",
            "target": "extra",
            "input": "m",
        }
        done(run, protocol.ConnectInput(**wiring))
        wait_until(
            lambda: (found := edge(run, "extra/m")) is not None and found.received > 3,
            what="messages at the new input",
        )
        assert "reads" in refused(run, protocol.ConnectInput(**wiring))
        done(run, protocol.DisconnectInput(**wiring))
        assert edge(run, "extra/m") is None
        assert "does not read" in refused(run, protocol.DisconnectInput(**wiring))
        bad = protocol.ConnectInput(source="ticker", output="nope", target="extra", input="k")
        assert "does not exist" in refused(run, bad)
        bad = protocol.ConnectInput(source="absent", output="x", target="extra", input="k")
        assert "does not exist" in refused(run, bad)
        connect_timer_and_logs(run)
        done(run, protocol.RemoveNode(node="extra", grace=1.0))
        assert [n.node for n in run.status().nodes] == ["ticker", "listener"]
        assert finish(run).ok


def test_a_node_that_is_restarted_while_it_is_removed_is_stopped_again(
    workspace: Workspace,
) -> None:
    ticker, listener = prepared(workspace)["nodes"]
    workspace.node("deaf", "import time\nfrom dora import Node\nnode = Node()\ntime.sleep(1000)\n")
    with background(workspace, {"nodes": [ticker, {**listener, "path": "deaf.py"}]}) as run:
        run.wait_for_phase("running")
        wait_until(
            lambda: (found := edge(run, "listener/count")) is not None and found.queued > 0,
            what="messages that are not read",
        )
        with connect_unix(run.path / "c") as other:
            other.sendall(protocol.request_line(1, protocol.RemoveNode(node="ticker", grace=1.0)))
            run.wait_for_state("ticker", "Stopped")
            run.request(protocol.RestartNode(node="ticker", grace=1.0))
            reply = other.makefile("rb").readline()
        assert json.loads(reply)["reply"]["kind"] == "done"
        assert [n.node for n in run.status().nodes] == ["listener"]
        finish(run)


def printed_by(run: BackgroundRun, node: str) -> Callable[[], list[str]]:
    """Return a function that returns what a node has printed since now."""
    path = log_dir(Path(run.plan.working_dir), run.plan.dataflow_id) / log_file_name(node)
    before = len(texts(path))
    return lambda: [text.strip() for text in texts(path)[before:]]


@contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    """Let a process open no more files."""
    allowed = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, allowed[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, allowed)


def connect_timer_and_logs(run: BackgroundRun) -> None:
    """Connect them to the node "extra", and disconnect them."""
    lines = printed_by(run, "extra")
    for output, name in (("timer/millis/10", "tick"), ("logs/info/ticker", "lines")):
        ends: dict[str, Any] = {"source": "dora", "target": "extra"}
        ends |= {"output": output, "input": name}
        if name == "lines":
            with without_descriptors(run.pid()):
                assert "cannot create the queue" in refused(run, protocol.ConnectInput(**ends))
        done(run, protocol.ConnectInput(**ends))
        assert "already reads" in refused(run, protocol.ConnectInput(**ends))
    wait_until(lambda: any(one.startswith("INPUT tick") for one in lines()), what="ticks")
    assert edge(run, "extra/lines") is not None
    wrong = protocol.DisconnectInput(
        source="dora", output="timer/millis/20", target="extra", input="tick"
    )
    assert "reads `dora/timer/millis/10`" in refused(run, wrong)
    for output, name in (("timer/millis/10", "tick"), ("logs/info/ticker", "lines")):
        ends = {"source": "dora", "target": "extra", "output": output, "input": name}
        done(run, protocol.DisconnectInput(**ends))
    closed = {"INPUT_CLOSED tick", "INPUT_CLOSED lines"}
    wait_until(lambda: closed <= set(lines()), what="the end of both")
    assert edge(run, "extra/lines") is None
    bad = protocol.ConnectInput(source="dora", output="timer/hours/1", target="extra", input="k")
    assert "unknown timer unit" in refused(run, bad)


def test_a_stop_ends_the_addition_of_a_node(workspace: Workspace) -> None:
    workspace.node("slow", "import time; time.sleep(1000)")
    with background(workspace, prepared(workspace)) as run:
        run.wait_for_phase("running")
        slow = resolved(workspace, id="slow", path="slow.py", inputs={"n": "ticker/count"})
        with connect_unix(run.path / "c") as other:
            other.sendall(protocol.request_line(1, protocol.AddNode(node=slow)))
            run.wait_for_state("slow", "Starting")
            done(run, protocol.StopAllNodes(grace=0.5))
            line = other.makefile("rb").readline()
        refusal = {"kind": "refusal", "message": "the dataflow is stopping", "ended": True}
        assert json.loads(line)["reply"] == refusal
        assert finish(run).ok


def test_requests_in_progress_are_answered_when_the_dataflow_ends(workspace: Workspace) -> None:
    reader = {"id": "sleeper", "path": "sleeper.py", "inputs": {"count": "ticker/count"}}
    flow = {"nodes": [prepared(workspace)["nodes"][0], reader]}
    requests: list[protocol.RunnerRequest] = [
        protocol.RestartNode(node="sleeper", grace=100.0),
        protocol.RemoveNode(node="ticker", grace=0.0),  # its reader never reads
        protocol.HoldNode(node="sleeper", reason="test"),
        protocol.StopNode(node="sleeper"),
    ]
    with background(workspace, flow) as run:
        run.wait_for_phase("running")
        with connect_unix(run.path / "c") as other:
            for number, request in enumerate(requests):
                other.sendall(protocol.request_line(number, request))
            lines = other.makefile("rb")
            replies = [json.loads(lines.readline())]
            done(run, protocol.StopAllNodes(force=True))
            run.wait_for_phase("finished")
            done(run, protocol.AcknowledgeResult())
            replies += [json.loads(line) for line in lines]
        gone(run.pid())
    ended = {"kind": "refusal", "message": "the dataflow has ended", "ended": True}
    successful = {"kind": "done", "warnings": []}
    found = {reply["id"]: reply["reply"] for reply in replies}
    assert found == {0: ended, 1: successful, 2: successful, 3: ended}


def test_a_node_is_replaced_while_its_consumers_run_on(workspace: Workspace) -> None:
    with background(workspace, prepared(workspace)) as run:
        run.wait_for_phase("running")
        printed = printed_by(run, "listener")
        first = run.wait_for_state("ticker", "Running")
        workspace.node("other", TICKER.replace("number % 256", "77"))
        fields = {**TICKING["nodes"][0], "path": "other.py"}
        done(run, protocol.ReplaceNode(node=resolved(workspace, **fields), grace=1.0))
        second = run.wait_for_state("ticker", "Running")
        assert second.pid != first.pid
        assert not is_running(first.pid or 0)

        wait_until(lambda: "INPUT count [77]" in printed(), what="the new program")
        assert "NODE_RESTARTED ticker" in printed()
        assert not any(line.startswith("INPUT_CLOSED") for line in printed())
        assert finish(run).ok


def test_parameters(workspace: Workspace) -> None:
    workspace.node(
        "tuned",
        """
        from dora import Node
        for event in Node():
            print(event["type"], event.get("id"), event.get("value"), flush=True)
        """,
    )
    content = {
        "nodes": [{"id": "tuned", "path": "tuned.py", "inputs": {"t": "dora/timer/secs/1000"}}]
    }
    with background(workspace, content) as run:
        run.wait_for_phase("running")
        run.request(protocol.Handshake())
        printed = printed_by(run, "tuned")
        done(run, protocol.SetParam(node="tuned", key="speed", value={"max": [1, 2.5, None]}))
        values = run.request(protocol.GetParams(node="tuned")).values
        assert values == {"speed": {"max": [1, 2.5, None]}}
        assert protocol.RunnerState(phase="running", revision=1) in run.notices
        definitions = run.request(protocol.GetNodes())
        assert definitions.params == {"tuned": values}
        assert definitions.revision == run.status().state.revision == 1
        done(run, protocol.DeleteParam(node="tuned", key="speed"))
        message = refused(run, protocol.DeleteParam(node="tuned", key="speed"))
        assert "param not found" in message
        assert "bytes" in refused(run, protocol.SetParam(node="tuned", key="k" * 257, value=1))
        big = protocol.SetParam(node="tuned", key="k", value="v" * 70_000)
        assert "65536" in refused(run, big)

        wait_until(lambda: "PARAM_DELETED speed None" in printed(), what="the parameters")
        assert "PARAM_UPDATE speed {'max': [1, 2.5, None]}" in printed()
        finish(run)


def test_a_held_barrier_opens_on_release(workspace: Workspace) -> None:
    with background(workspace, prepared(workspace), hold_at_barrier=True) as run:
        run.wait_for_phase("ready")
        assert {n.status for n in run.status().nodes} == {"Starting"}
        done(run, protocol.Release())
        run.wait_for_phase("running")
        done(run, protocol.Release())
        assert finish(run).ok


def test_a_timed_out_input_degrades_its_node_until_it_recovers(workspace: Workspace) -> None:
    workspace.node(
        "fitful",
        """
        import time
        from pathlib import Path
        from dora import Node
        node = Node()
        node.send_output("x", b"1")
        while not Path("go-on").exists():
            time.sleep(0.01)
        while True:
            node.send_output("x", b"2")
            time.sleep(0.02)
        """,
    )
    workspace.node("listener", LISTENER)
    content = {
        "health_check_interval": 0.1,
        "nodes": [
            {"id": "fitful", "path": "fitful.py", "outputs": ["x"]},
            {
                "id": "listener",
                "path": "listener.py",
                "inputs": {"x": {"source": "fitful/x", "input_timeout": 0.3}},
            },
            {
                "id": "other",
                "path": "listener.py",
                "inputs": {
                    "x": {"source": "fitful/x", "input_timeout": 0.3},
                    "tick": "dora/timer/secs/10",
                },
            },
        ],
    }
    with background(workspace, content) as run:
        broken = run.wait_for_state("listener", "Degraded")
        assert broken.broken_inputs == ("x",)
        assert broken.input_timeouts == 1
        run.wait_for_state("other", "Degraded")
        removed = protocol.DisconnectInput(source="fitful", output="x", target="other", input="x")
        done(run, removed)
        run.wait_for_state("other", "Running")
        workspace.file("go-on", "")
        healed = run.wait_for_state("listener", "Running")
        assert healed.input_recoveries > 0
        finish(run)


def test_dynamic_nodes_can_attach_repeatedly(workspace: Workspace) -> None:
    import subprocess
    import sys

    content = prepared(workspace)
    nodes = [*content["nodes"], {"id": "dyn", "path": "dynamic", "inputs": {"n": "ticker/count"}}]
    script = workspace.node(
        "attach",
        """
        from dora import Node
        node = Node("dyn")
        kinds = [event["type"] for _, event in zip(range(3), node)]
        print(*kinds)
        """,
    )
    with background(workspace, {"nodes": nodes}) as run:
        run.wait_for_phase("running")
        run.wait_for_state("dyn", "Stopped")
        for _ in range(2):
            out = subprocess.run(
                [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
            )
            assert out.stdout.split() == ["INPUT"] * 3, out.stderr
            run.wait_for_state("dyn", "Stopped")
        deaf = workspace.node(
            "deaf", "import time\nfrom dora import Node\nnode = Node('dyn')\ntime.sleep(1000)\n"
        )
        process = subprocess.Popen([sys.executable, deaf])
        run.wait_for_state("dyn", "Running")
        done(run, protocol.RemoveNode(node="dyn", grace=0.2))
        assert [n.node for n in run.status().nodes] == ["ticker", "listener"]
        process.kill()
        process.wait()
        static = workspace.node("static", "from dora import Node\nNode('ticker')\n")
        out = subprocess.run(
            [sys.executable, static], capture_output=True, text=True, timeout=60, check=False
        )
        assert "is not dynamic" in out.stderr
        assert finish(run).ok


def test_a_plan_is_unchanged_after_serialization(workspace: Workspace) -> None:
    plan = make_plan(workspace, prepared(workspace), env_overrides={"A": "b"}, uv=False)
    assert protocol.RunPlan.model_validate_json(plan.model_dump_json()) == plan


def test_an_error_of_the_runner_itself_is_in_its_result(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(runner: Runner, **_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Runner, "run", broken)
    directory = RuntimeDir.create(runtime_root())
    plan = make_plan(workspace, prepared(workspace))
    directory.write("plan.json", plan.model_dump_json())
    with pytest.raises(ExceptionGroup):
        main(directory.path, directory.lock_descriptor)
    text = (directory.path / "result.json").read_text()
    result = protocol.DataflowResult.model_validate_json(text)
    assert result.error == "the runner failed: ZeroDivisionError('a bug')"
    (directory.path / "result.json").unlink()
    assert sweep(runtime_root()) == [directory.path]


def test_a_full_disk_does_not_end_a_dataflow(workspace: Workspace) -> None:
    with background(workspace, prepared(workspace)) as run:
        run.wait_for_phase("running")
        # these files cannot be written any more
        for name in ("index.json", ".result.json.new"):
            (run.path / name).unlink(missing_ok=True)
            (run.path / name).mkdir()
        extra = resolved(workspace, id="extra", path="listener.py", inputs={"n": "ticker/count"})
        done(run, protocol.AddNode(node=extra))
        run.wait_for_state("extra", "Running")
        assert finish(run).ok
