"""Real dataflows in the foreground: data, ends, failures, restarts, logs."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from support.runner.runs import LISTENER, SLEEPER, TALKER, gone, run_flow
from support.workspace import Workspace

from dora_config.protocol.runner_events import (
    DataflowFinished,
    DataflowStarted,
    LogLine,
    NodeFailed,
    NodeRestarting,
    NodeSpawned,
)
from dora_daemon.process_tree.runtime_dir import runtime_root
from dora_daemon.runner import foreground
from dora_daemon.runner.errors import PreparationError

pytestmark = [pytest.mark.integration, pytest.mark.dependencies]


def pair(**talker: object) -> dict[str, object]:
    return {
        "nodes": [
            {"id": "talker", "path": "talker.py", "outputs": ["number"], **talker},
            {"id": "listener", "path": "listener.py", "inputs": {"number": "talker/number"}},
        ]
    }


def test_samples_are_followed_by_the_end_of_the_input(workspace: Workspace) -> None:
    workspace.node("talker", TALKER)
    workspace.node("listener", LISTENER)
    ran = run_flow(workspace, pair())
    assert ran.lines("listener") == [
        "INPUT number [0]",
        "INPUT number [1]",
        "INPUT number [2]",
        "INPUT_CLOSED number ",
        "STOP ALL_INPUTS_CLOSED ",
    ]
    assert ran.result is not None
    assert ran.result.ok
    assert isinstance(ran.events[-2], DataflowFinished)
    assert len(ran.of(DataflowStarted)) == 1
    assert len(ran.of(NodeSpawned)) == 2
    root = runtime_root()
    assert [p.name for p in root.iterdir()] == [".lock"]


def test_a_crash_is_announced_to_consumers_that_run_on(workspace: Workspace) -> None:
    workspace.node("talker", TALKER + "\n    sys.exit('broken lens')\n")
    workspace.node("listener", LISTENER)
    ran = run_flow(workspace, pair())
    assert ran.lines("listener")[-3:] == [
        "NODE_FAILED talker ",
        "INPUT_CLOSED number ",
        "STOP ALL_INPUTS_CLOSED ",
    ]
    assert ran.outcome("talker") == "failed: exited with code 1"
    assert ran.outcome("listener") == "success"
    failed = ran.of(NodeFailed)
    assert [f.result.node for f in failed] == ["talker"]
    assert failed[0].result.stderr_tail == ("broken lens",)
    assert not ran.result.ok if ran.result else False


def test_a_restart_is_announced_and_closes_no_input(workspace: Workspace) -> None:
    workspace.node(
        "talker",
        """
        import os, signal
        from dora import Node
        node = Node()
        node.send_output("number", bytes([node.restart_count()]))
        assert node.is_restart() == (node.restart_count() > 0)
        if node.restart_count() < 2:
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    workspace.node("listener", LISTENER)
    ran = run_flow(workspace, pair(restart_policy="on-failure", restart_delay=0.01))
    assert ran.lines("listener") == [
        "INPUT number [0]",
        "NODE_RESTARTED talker ",
        "INPUT number [1]",
        "NODE_RESTARTED talker ",
        "INPUT number [2]",
        "INPUT_CLOSED number ",
        "STOP ALL_INPUTS_CLOSED ",
    ]
    assert [e.delay for e in ran.of(NodeRestarting)] == [0.01, 0.02]
    assert ran.result is not None
    assert ran.result.ok


def test_a_restarted_consumer_receives_queued_samples_and_ended_inputs(
    workspace: Workspace,
) -> None:
    workspace.node("talker", TALKER)
    workspace.node(
        "listener",
        """
        import os
        from dora import Node
        node = Node()
        for event in node:
            print(event["type"], flush=True)
            if node.restart_count() == 0:
                os._exit(7)
        """,
    )
    content = pair()
    content["nodes"][1]["restart_policy"] = "on-failure"  # type: ignore[index]
    ran = run_flow(workspace, content)
    assert ran.lines("listener") == ["INPUT", "INPUT", "INPUT", "INPUT_CLOSED", "STOP"]
    assert ran.result is not None
    assert ran.result.ok


def test_stop_after_is_a_normal_stop(workspace: Workspace) -> None:
    workspace.node("listener", LISTENER)
    content = {
        "nodes": [
            {"id": "t", "path": "listener.py", "inputs": {"tick": "dora/timer/millis/20"}},
        ]
    }
    ran = run_flow(workspace, content, stop_after=1.0)
    lines = ran.lines("t")
    assert lines[-1] == "STOP MANUAL "
    assert 1 <= lines.count("INPUT tick []") <= 60
    assert ran.result is not None
    assert ran.result.ok
    assert ran.result.stop_reason == "stop after 1 s"


def test_a_node_that_ignores_stop_gets_sigterm(workspace: Workspace) -> None:
    workspace.node("sleeper", SLEEPER)
    content = {"nodes": [{"id": "s", "path": "sleeper.py"}]}
    ran = run_flow(workspace, content, stop_after=0.05, stop_grace=0.2)
    assert ran.outcome("s") == "success"
    assert ran.result is not None
    assert ran.result.nodes[0].signal == "SIGTERM"


def test_a_node_that_ignores_sigterm_is_killed_with_its_children(workspace: Workspace) -> None:
    workspace.node(
        "stubborn",
        """
        import signal, subprocess, sys, time
        from dora import Node
        node = Node()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        print(child.pid, flush=True)
        while True:
            time.sleep(1)
        """,
    )
    content = {"nodes": [{"id": "s", "path": "stubborn.py"}]}
    ran = run_flow(workspace, content, stop_after=0.5, stop_grace=0.2)
    assert "failed: was killed: it didn't react to a stop message in time" in ran.outcome("s")
    gone(int(ran.lines("s")[0]))


def test_a_failure_before_connecting_is_the_only_root_cause(workspace: Workspace) -> None:
    workspace.node("talker", "import nothing_of_that_name")
    workspace.node("listener", LISTENER)
    ran = run_flow(workspace, pair())
    assert ran.result is not None
    assert [r.node for r in ran.result.root_causes] == ["talker"]
    assert [r.node for r in ran.result.cascading] == ["listener"]
    assert "ModuleNotFoundError" in ran.result.root_causes[0].stderr_tail[-1]
    assert any('"talker" exited before connecting' in line for line in ran.lines("listener"))


BUSY = """
    import os, signal, sys, threading, time
    from dora import Node
    node = Node()
    end = time.monotonic() + 3
    if node.is_restart():
        sys.exit()
    match sys.argv[1]:
        case "computes":
            while time.monotonic() < end:
                pass
        case "holds the interpreter lock":
            while time.monotonic() < end:
                sum(range(20_000_000))
        case "sleeps":
            time.sleep(3)
        case "waits":
            lock = threading.Lock()
            with lock:
                lock.acquire(timeout=3)
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "stopped in next":
            node.next()
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGSTOP)).start()
            node.next()
    print("done")
"""


@pytest.mark.parametrize("does", ["computes", "holds the interpreter lock", "sleeps", "waits"])
def test_a_busy_node_is_healthy(workspace: Workspace, does: str) -> None:
    ran = run_flow(workspace, _health_checked(workspace, does))
    assert ran.lines("n") == ["done"]
    assert ran.outcome("n") == "success"


@pytest.mark.parametrize("does", ["stopped", "stopped in next"])
def test_a_stopped_node_is_killed_and_restarted(workspace: Workspace, does: str) -> None:
    ran = run_flow(workspace, _health_checked(workspace, does))
    lines = [line.message for line in ran.of(LogLine)]
    assert any("its process could not run" in line for line in lines), lines
    assert ran.lines("n").count("done") == 0
    assert ran.outcome("n") == "success"


def _health_checked(workspace: Workspace, does: str) -> dict[str, Any]:
    workspace.node("busy", BUSY)
    node = {"id": "n", "path": "busy.py", "args": f"'{does}'", "health_check_timeout": 1.0}
    inputs = {"t": "dora/timer/secs/100"}
    restart = {"restart_policy": "on-failure", "max_restarts": 1}
    return {"health_check_interval": 0.2, "nodes": [{**node, **restart, "inputs": inputs}]}


AGAIN = """
    import gc
    from dora import Node
    node = Node()
    node.send_output("number", b"x")
    del node
    gc.collect()
    try:
        Node()
    except RuntimeError as error:
        print(error)
"""


def test_a_second_node_after_the_first_was_collected_is_refused(
    workspace: Workspace,
) -> None:
    workspace.node("talker", AGAIN)
    workspace.node("listener", LISTENER)
    ran = run_flow(workspace, pair())
    (sentence,) = ran.lines("talker")
    assert 'this process has left the dataflow as node "talker"' in sentence
    assert "keep a reference to the first Node" in sentence
    assert ran.outcome("talker") == "success"
    assert ran.lines("listener")[0] == "INPUT number [120]"


def test_operators_run_in_a_host(workspace: Workspace) -> None:
    workspace.node("talker", TALKER)
    workspace.node("listener", LISTENER)
    workspace.node(
        "double",
        """
        from dora import DoraStatus
        class Operator:
            def on_event(self, event, send_output):
                if event["type"] == "INPUT":
                    send_output("twice", bytes([event["value"][0].as_py() * 2]), {})
                return DoraStatus.CONTINUE
        """,
    )
    content = {
        "nodes": [
            {"id": "talker", "path": "talker.py", "outputs": ["number"]},
            {
                "id": "host",
                "operator": {
                    "python": "double.py",
                    "inputs": {"number": "talker/number"},
                    "outputs": ["twice"],
                },
            },
            {"id": "listener", "path": "listener.py", "inputs": {"n": "host/twice"}},
        ]
    }
    ran = run_flow(workspace, content)
    assert ran.lines("listener")[:3] == ["INPUT n [0]", "INPUT n [2]", "INPUT n [4]"]
    assert ran.result is not None
    assert ran.result.ok


# --- what cannot be prepared


def test_if_a_node_cannot_be_prepared_none_is_spawned(workspace: Workspace) -> None:
    marker = workspace.path / "spawned"
    workspace.node("talker", f"open({str(marker)!r}, 'w')")
    content = {
        "nodes": [
            {"id": "talker", "path": "talker.py"},
            {"id": "missing", "path": "sub/missing.py"},
            {"id": "absent", "path": "no-such-program-anywhere"},
            {"id": "plain", "path": "notes.txt"},
            {"id": "sh", "path": "shell", "args": "true"},
        ]
    }
    workspace.file("notes.txt", "hello")
    with pytest.raises(PreparationError) as caught:
        run_flow(workspace, content)
    missing, absent, plain, shell = caught.value.problems
    assert "Could not find source path" in missing
    assert str(workspace.path / "sub/missing.py") in missing
    assert 'node "absent": Could not find source path' in absent
    assert "not executable" in plain
    assert "shell nodes are disabled" in shell
    assert "--allow-shell-nodes" in shell
    assert not marker.exists()


def test_shell_nodes_run_where_allowed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"nodes": [{"id": "sh", "path": "shell", "args": "echo $((20 + 22)) | cat"}]}
    assert run_flow(workspace, content, allow_shell=True).lines("sh") == ["42"]
    monkeypatch.setenv("DORA_ALLOW_SHELL_NODES", "true")
    assert run_flow(workspace, content).lines("sh") == ["42"]


# --- logs


def test_log_lines_in_file_and_terminal(workspace: Workspace) -> None:
    workspace.node(
        "speaker",
        """
        import logging, sys
        from dora import Node
        print("plain", flush=True)
        print("to stderr", file=sys.stderr, flush=True)
        node = Node()
        node.log_warn("careful", target="arm", fields={"joint": "3"})
        logging.info("from logging")
        """,
    )
    ran = run_flow(workspace, {"nodes": [{"id": "speaker", "path": "speaker.py"}]})
    entries = {entry["msg"]: entry for entry in ran.log_file("speaker")}
    plain = entries["plain"]
    assert (plain["level"], plain["stream"], plain["node"]) == ("stdout", "stdout", "speaker")
    assert entries["to stderr"]["stream"] == "stderr"
    assert entries["careful"]["level"] == "warn"
    assert entries["careful"]["target"] == "arm"
    assert entries["careful"]["fields"] == {"joint": "3"}
    assert entries["from logging"]["level"] == "info"
    assert {line.message for line in ran.of(LogLine)} >= set(entries)


def test_the_log_is_appended_across_restarts(workspace: Workspace) -> None:
    workspace.node(
        "again",
        """
        from dora import Node
        node = Node()
        print("life", node.restart_count(), flush=True)
        """,
    )
    content = {
        "nodes": [
            {"id": "again", "path": "again.py", "restart_policy": "always", "max_restarts": 2}
        ]
    }
    ran = run_flow(workspace, content)
    printed = [e["msg"] for e in ran.log_file("again") if e["level"] == "stdout"]
    assert printed == ["life 0", "life 1", "life 2"]
    assert "max restarts (2) exceeded" in ran.outcome("again")


def test_lines_and_log_entries_are_sent_as_samples(workspace: Workspace) -> None:
    workspace.node(
        "speaker",
        """
        from dora import Node
        node = Node()
        print("one", flush=True)
        node.log_info("two")
        print("three", flush=True)
        """,
    )
    workspace.node("listener", LISTENER)
    content = {
        "nodes": [
            {
                "id": "speaker",
                "path": "speaker.py",
                "outputs": ["lines", "entries"],
                "send_stdout_as": "lines",
                "send_logs_as": "entries",
            },
            {"id": "of_lines", "path": "listener.py", "inputs": {"l": "speaker/lines"}},
            {"id": "of_entries", "path": "listener.py", "inputs": {"e": "speaker/entries"}},
            {"id": "of_logs", "path": "listener.py", "inputs": {"e": "dora/logs/info/speaker"}},
        ]
    }
    ran = run_flow(workspace, content, exit_when_nodes_finish=True)
    lines = ran.lines("of_lines")
    assert lines[0] == r"INPUT l ['one\n']"
    assert "two" in lines[1]
    assert lines[2:] == [r"INPUT l ['three\n']", "INPUT_CLOSED l ", "STOP ALL_INPUTS_CLOSED "]
    entries = ran.lines("of_entries")
    assert len([line for line in entries if line.startswith("INPUT e")]) == 1
    assert '"level": "INFO"' in entries[0]
    assert '"message": "two"' in entries[0]
    assert any('"message": "two"' in line for line in ran.lines("of_logs"))
    assert not any('"message": "one"' in line for line in ran.lines("of_logs"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("#!/no/such/interpreter\n", "the interpreter that its first line names does not"),
        ("print('hello')\n", "it is not a program for this machine"),
    ],
)
def test_a_program_that_cannot_be_started_is_explained(
    workspace: Workspace, content: str, message: str
) -> None:
    workspace.file("program", content).chmod(0o755)
    ran = run_flow(workspace, {"nodes": [{"id": "n", "path": "program"}]})
    assert f"failed to spawn node: {workspace.path / 'program'}" in ran.outcome("n")
    assert message in ran.outcome("n")


def test_stderr_is_sent_with_stdout(workspace: Workspace) -> None:
    workspace.node(
        "speaker",
        """
        import sys
        from dora import Node
        node = Node()
        print("careful", file=sys.stderr, flush=True)
        """,
    )
    workspace.node("listener", LISTENER)
    speaker = {"id": "speaker", "path": "speaker.py", "outputs": ["l"], "send_stdout_as": "l"}
    listener = {"id": "listener", "path": "listener.py", "inputs": {"l": "speaker/l"}}
    ran = run_flow(workspace, {"nodes": [speaker, listener]})
    assert ran.lines("listener")[0] == r"INPUT l ['careful\n']"


def test_entries_below_min_log_level_are_dropped(workspace: Workspace) -> None:
    workspace.node(
        "speaker",
        """
        from dora import Node
        node = Node()
        print("printed", flush=True)
        node.log_info("shown")
        node.log_error("cried")
        """,
    )
    content = {
        "nodes": [{"id": "speaker", "path": "speaker.py", "min_log_level": "warn"}],
    }
    ran = run_flow(workspace, content)
    assert [e["msg"] for e in ran.log_file("speaker")] == ["cried"]
    assert ran.lines("speaker") == ["cried"]


def test_a_flood_of_lines_does_not_delay_other_nodes(workspace: Workspace) -> None:
    workspace.node(
        "flood",
        """
        import sys
        from dora import Node
        node = Node()
        sys.stdout.write("x\\n" * 300_000)
        sys.stdout.flush()
        """,
    )
    workspace.node("talker", TALKER)
    workspace.node("listener", LISTENER)
    content = pair()
    content["nodes"].append({"id": "flood", "path": "flood.py"})  # type: ignore[attr-defined]
    ran = run_flow(workspace, content)
    messages = [(e.node, e.message) for e in ran.of(LogLine)]
    stop = messages.index(("listener", "STOP ALL_INPUTS_CLOSED "))
    assert len(messages) - stop > 100_000 or len(messages) < 300_000
    assert len(ran.log_file("flood")) == 300_000


def test_each_log_that_cannot_be_written_is_reported_once(workspace: Workspace) -> None:
    workspace.file("out", "a file where the folder should be")
    workspace.node("speaker", "print('a'); print('b'); print('c')")
    ran = run_flow(workspace, {"nodes": [{"id": "speaker", "path": "speaker.py"}]})
    assert ran.lines("speaker") == ["a", "b", "c"]
    complaints = [line for line in ran.lines(None) if "cannot write the log file" in line]
    assert len(complaints) == 2  # the file of the node, and that of the runner
    assert "log_speaker.jsonl" in complaints[0] + complaints[1]
    assert "log_dora.jsonl" in complaints[0] + complaints[1]
    assert ran.result is not None
    assert ran.result.ok


# --- environment and directories


def test_layers_of_the_environment(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_DAEMON", "daemon")
    monkeypatch.setenv("DORA_ZENOH_CONNECT", "secret")
    workspace.node(
        "env",
        """
        import os
        for name in ("FROM_DAEMON", "A", "B", "C", "M", "PYTHONUNBUFFERED", "DORA_MACHINE_ID"):
            print(name, os.environ.get(name))
        print("DORA_ZENOH_CONNECT" in os.environ, "LD_PRELOAD" in os.environ)
        print(os.getcwd())
        print(os.getpgid(0) == os.getpid())
        """,
    )
    content = {
        "env": {"A": "root", "B": "root", "C": "root"},
        "nodes": [
            {
                "id": "env",
                "path": "env.py",
                "env": {"C": "node", "M": {"__dora_env": "FROM_DAEMON"}},
            }
        ],
    }
    ran = run_flow(workspace, content, env_overrides={"B": "cli", "C": "cli"}, machine_id="robot")
    assert ran.lines("env") == [
        "FROM_DAEMON daemon",
        "A root",
        "B cli",
        "C node",
        "M daemon",
        "PYTHONUNBUFFERED 1",
        "DORA_MACHINE_ID robot",
        "False False",
        str(workspace.path),
        "True",
    ]


def test_an_error_of_the_control_socket_ends_no_dataflow(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind(path: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(foreground, "bind_unix", bind)
    workspace.node("talker", TALKER)
    workspace.node("listener", LISTENER)
    ran = run_flow(workspace, pair())
    assert ran.result is not None
    assert ran.result.ok
    (warning,) = [one.message for one in ran.of(LogLine) if one.level == "warn"]
    assert "No space left on device" in warning
    assert "the dataflow runs on" in warning


OWNER = """
from dora import Node

with Node() as node:
    for key in ("shared", "dropped", "taken"):
        node.extension_store("ns", key, key.encode())
    node.send_output("number", b"")
    node.next()
    print(node.drain_dropped_extension_keys("ns"))
    print(node.extension_load("ns", "taken"))
    node.extension_drop("ns", "dropped")
"""
READER = """
from dora import Node

node = Node()
print(next(node)["type"])
print(node.extension_load("ns", "shared"), node.extension_load("ns", "dropped"))
print(node.extension_load("ns", "taken", remove=True), node.extension_load("ns", "absent"))
try:
    node.extension_store("ns", "shared", b"other")
except RuntimeError as error:
    print(error)
node.send_output("back", b"")
print(next(node)["type"], node.drain_dropped_extension_keys("ns"))
print(node.extension_load("ns", "shared"), node.drain_dropped_extension_keys("ns"))
"""


def test_extensions_share_values_until_their_owner_ends(workspace: Workspace) -> None:
    workspace.node("talker", OWNER)
    workspace.node("listener", READER)
    flow = pair(inputs={"back": "listener/back"})
    flow["nodes"][1]["outputs"] = ["back"]  # type: ignore[index]
    ran = run_flow(workspace, flow)
    assert ran.lines("talker") == ["['taken']", "None"]
    assert ran.lines("listener") == [
        "INPUT",
        "b'shared' b'dropped'",
        "b'taken' None",
        "extension key `ns/shared` was stored by node `talker`, so node `listener` cannot replace"
        " it; drop it first or use another key",
        "INPUT_CLOSED ['taken', 'dropped', 'shared']",
        "None []",
    ]
