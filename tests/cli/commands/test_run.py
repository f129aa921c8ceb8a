"""`dora run`: output, exit codes, signals."""

from __future__ import annotations

import _posixsubprocess
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.dora import DORA, run_dora, running_dora
from support.git_repository import Repository
from support.workspace import Workspace

pytestmark = pytest.mark.integration

TALKER = """
    import os
    from dora import Node

    with Node() as node:
        print("colour", os.environ.get("COLOUR"))
        node.log_warn("beware")
        node.send_output("words", b"x")
"""

LISTENER = """
    from dora import Node

    with Node() as node:
        for event in node:
            if event["type"] == "INPUT":
                print("received", event["id"])
"""

CRASHING = """
    import sys
    from dora import Node

    with Node() as node:
        print("out of paper", file=sys.stderr)
        sys.exit(3)
"""

WAITING = """
    from dora import Node

    with Node() as node:
        print("waiting", flush=True)
        for event in node:
            if event["type"] == "STOP":
                print("stopped by", event["id"])
"""

STUBBORN = """
    import signal
    from dora import Node

    with Node() as node:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("waiting", flush=True)
        while True:
            signal.pause()
"""


def without_times(text: str) -> str:
    return re.sub(r"^\d\d:\d\d:\d\d ", "", text, flags=re.MULTILINE)


def without_ids(text: str) -> str:
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text)


@pytest.fixture
def talk(workspace: Workspace) -> Workspace:
    """A talker and a listener in flow.yml that end by themselves."""
    workspace.node("talker", TALKER)
    workspace.node("listener", LISTENER)
    workspace.dataflow(
        {
            "env": {"COLOUR": "root"},
            "nodes": [
                {"id": "talker", "path": "talker.py", "outputs": ["words"]},
                {"id": "listener", "path": "listener.py", "inputs": {"in": "talker/words"}},
            ],
        },
        "flow.yml",
    )
    return workspace


def one_node(workspace: Workspace, source: str, **fields: object) -> Workspace:
    workspace.node("n", source)
    timer = {"tick": "dora/timer/secs/1"}
    workspace.dataflow(
        {"nodes": [{"id": "n", "path": "n.py", "inputs": timer, **fields}]}, "flow.yml"
    )
    return workspace


def test_log_lines_of_all_nodes(talk: Workspace) -> None:
    shown = run_dora("run", "flow.yml", cwd=talk.path).succeeded()
    assert shown.stderr == ""
    assert sorted(without_times(shown.stdout).splitlines()) == [
        "WARN   talker: beware",
        "stdout listener: received in",
        "stdout talker: colour root",
    ]


def test_compact_and_filtered(talk: Workspace) -> None:
    words = ("--log-format", "compact", "--log-level", "info")
    levels = "listener=stdout,takler=error"
    shown = run_dora("run", "flow.yml", *words, "--log-filter", levels, cwd=talk.path).succeeded()
    assert shown.stderr == ('note: unknown node "takler" in --log-filter; did you mean "talker"?\n')
    assert sorted(without_times(shown.stdout).splitlines()) == [
        "WARN talker: beware",
        "stdout listener: received in",
    ]


def test_settings_from_the_environment(talk: Workspace) -> None:
    settings = {"DORA_LOG_LEVEL": "warn", "DORA_LOG_FORMAT": "compact"}
    shown = run_dora("run", "flow.yml", cwd=talk.path, env=settings).succeeded()
    assert without_times(shown.stdout) == "WARN talker: beware\n"


def test_json_lines_equal_the_log_files(talk: Workspace) -> None:
    shown = run_dora("run", "flow.yml", "--log-format", "json", cwd=talk.path).succeeded()
    printed = [json.loads(line) for line in shown.stdout.splitlines()]
    (folder,) = [path for path in (talk.path / "out").iterdir() if path.is_dir()]
    stored = [
        json.loads(line)
        for path in sorted(folder.glob("log_*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    key = str
    assert sorted(printed, key=key) == sorted(stored, key=key)
    assert {entry["msg"] for entry in printed} == {"beware", "received in", "colour root"}


def test_env_overrides_the_file_but_not_the_node(talk: Workspace) -> None:
    shown = run_dora("run", "flow.yml", "--env", "COLOUR=01", cwd=talk.path).succeeded()
    assert "talker: colour 01\n" in shown.stdout
    talk.dataflow(
        {
            "nodes": [
                {
                    "id": "talker",
                    "path": "talker.py",
                    "outputs": ["words"],
                    "env": {"COLOUR": "own"},
                }
            ]
        },
        "flow.yml",
    )
    shown = run_dora("run", "flow.yml", "--env", "COLOUR=01", cwd=talk.path).succeeded()
    assert "talker: colour own\n" in shown.stdout


def test_nodes_and_builds_find_libraries_of_the_shell(workspace: Workspace) -> None:
    """As programs, forked, and with a path of their own."""
    for name in ("shell", "own"):
        folder = workspace.path / name
        folder.mkdir()
        shutil.copy(_posixsubprocess.__file__, folder / f"libof_{name}.so")
    load = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print('loaded', sys.argv[1])"
    workspace.node("load", f"import dora; node = dora.Node(); {load}")
    of_shell: dict[str, object] = {"path": "load.py", "args": "libof_shell.so", "outputs": ["x"]}
    build = shlex.join(["python", "-c", load, "libof_shell.so"])
    nodes: list[dict[str, object]]
    nodes = [{"id": f"n{number}", **of_shell} for number in range(2)]
    nodes.append({"id": "program", "warm": False, "build": build, **of_shell})
    env = {"LD_LIBRARY_PATH": str(workspace.path / "own")}
    nodes.append({"id": "own", "path": "load.py", "args": "libof_own.so", "env": env})
    path = workspace.dataflow({"nodes": nodes})
    done = run_dora("run", path, env={"LD_LIBRARY_PATH": str(workspace.path / "shell")})
    lines = done.succeeded().stdout
    assert lines.count(": loaded libof_shell.so") == 3
    assert lines.count(": loaded libof_own.so") == 1


def test_a_failed_node_is_reported_with_reason_and_stderr(workspace: Workspace) -> None:
    workspace.node("n", CRASHING)
    workspace.node("listener", LISTENER)
    workspace.dataflow(
        {
            "nodes": [
                {"id": "n", "path": "n.py", "outputs": ["o"]},
                {"id": "listener", "path": "listener.py", "inputs": {"in": "n/o"}},
            ]
        },
        "flow.yml",
    )
    shown = run_dora("run", "flow.yml", cwd=workspace.path).exited(1)
    assert without_times(shown.stdout) == (
        'stderr n: out of paper\nERROR  [dora]: node "n" failed: exited with code 3\n'
    )
    assert without_ids(shown.stderr) == (
        '[ERROR]\nnode "n": exited with code 3\n  ┌─ stderr\n  │ out of paper\n  └─\nlogs: out/ID\n'
    )


def test_consequential_errors_are_counted(workspace: Workspace) -> None:
    workspace.node("n", "import sys; sys.exit(7)")
    for name in ("a", "b"):
        workspace.node(name, WAITING)
    nodes = [{"id": name, "path": f"{name}.py", "outputs": ["o"]} for name in ("n", "a", "b")]
    workspace.dataflow({"nodes": nodes}, "flow.yml")
    shown = run_dora("run", "flow.yml", cwd=workspace.path).exited(1)
    assert shown.stderr.count("[ERROR]") == 1
    assert 'node "n": exited with code 7' in shown.stderr
    assert "2 more consequential errors\n" in shown.stderr


def test_no_node_is_spawned_if_one_cannot_be_prepared(talk: Workspace) -> None:
    (talk.path / "listener.py").unlink()
    shown = run_dora("run", "flow.yml", cwd=talk.path).exited(1)
    assert shown.stdout == ""
    assert shown.stderr.startswith('[ERROR]\nnode "listener": Could not find source path ')


def test_all_problems_of_a_file_are_reported(workspace: Workspace) -> None:
    workspace.dataflow("nodes:\n  - id: a\n    pth: x\n  - id: b\n    pat: a.py\n", "flow.yml")
    shown = run_dora("run", "flow.yml", cwd=workspace.path).exited(1)
    lines = shown.stderr.splitlines()
    assert lines[0] == "[ERROR]"
    assert len(lines) >= 3
    assert all(line.startswith("flow.yml:") for line in lines[1:])


def test_a_failed_build_ends_the_run(workspace: Workspace) -> None:
    one_node(workspace, "raise SystemExit('never')", build="false")
    shown = run_dora("run", "flow.yml", cwd=workspace.path).exited(1)
    assert shown.stdout == "n: false\nn: failed\n"
    assert shown.stderr.startswith("[ERROR]\nnode \"n\": build line 'false' in ")


def test_a_linked_file_runs_in_the_folder_of_the_link(
    workspace: Workspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one_node(
        workspace,
        """
        from pathlib import Path
        from dora import Node

        with Node():
            print("in", Path.cwd())
        """,
        build="touch built",
    )
    real = tmp_path_factory.mktemp("real")
    (workspace.path / "flow.yml").rename(real / "stored.yml")
    (workspace.path / "flow.yml").symlink_to(real / "stored.yml")
    shown = run_dora("run", workspace.path / "flow.yml", cwd=real).succeeded()
    assert f"in {workspace.path.resolve()}\n" in shown.stdout
    assert (workspace.path / "built").exists()
    assert (workspace.path / "out").is_dir()
    assert [entry.name for entry in real.iterdir()] == ["stored.yml"]


def test_paths_and_values_that_are_not_utf8(workspace: Workspace) -> None:
    folder = workspace.path / os.fsdecode(b"b\xffd")
    folder.mkdir()
    one_node(Workspace(folder), "import dora, os; dora.Node(); print(os.environb[b'A'])")
    value = os.fsdecode(b"A=\xff")
    shown = run_dora("run", "flow.yml", "--env", value, cwd=folder).succeeded()
    assert without_times(shown.stdout) == "stdout n: b'\\xff'\n"


def test_a_git_source_runs_in_its_clone(workspace: Workspace) -> None:
    repository = Repository(workspace.path / "remote")
    repository.commit("import os; print('in', os.getcwd())")
    node = {"id": "n", "path": "node.py", "git": repository.url}
    workspace.dataflow({"nodes": [node]}, "flow.yml")
    shown = run_dora("run", "flow.yml", cwd=workspace.path).succeeded()
    clone = workspace.path / "git" / "localhost" / str(repository.folder).lstrip("/")
    assert f"stdout n: in {clone}/" in shown.stdout
    logs = run_dora("logs", "--local", cwd=workspace.path).succeeded()
    assert "stdout n: in " in logs.stdout


def test_stop_after_stops_gracefully(workspace: Workspace) -> None:
    one_node(workspace, WAITING)
    shown = run_dora("run", "flow.yml", "--stop-after", "100ms", cwd=workspace.path).succeeded()
    assert without_times(shown.stdout) == "stdout n: waiting\nstdout n: stopped by MANUAL\n"
    assert shown.stderr == "stopping (stop after 0.1 s): nodes have 10 s; Ctrl-C kills them\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_gracefully(workspace: Workspace, number: signal.Signals) -> None:
    one_node(workspace, WAITING)
    with running_dora("run", "flow.yml", cwd=workspace.path) as running:
        running.wait_for("waiting")
        running.send_signal(number)
        ended = running.wait().exited(0)
    assert "n: stopped by MANUAL\n" in ended.stdout
    assert ended.stderr == (
        f"stopping (signal {number.name}): nodes have 10 s; Ctrl-C again kills them\n"
    )


def test_a_second_ctrl_c_kills(workspace: Workspace) -> None:
    one_node(workspace, STUBBORN)
    with running_dora("run", "flow.yml", cwd=workspace.path) as running:
        running.wait_for("waiting")
        running.interrupt()
        running.wait_for("stopping (signal SIGINT)")
        running.interrupt()
        ended = running.wait().exited(1)
    assert 'node "n": ' in ended.stderr


def test_a_closed_pipe_stops_the_dataflow(workspace: Workspace) -> None:
    one_node(
        workspace,
        """
        from dora import Node

        with Node() as node:
            for event in node:
                print("tick", flush=True)
        """,
        inputs={"tick": "dora/timer/millis/10"},
    )
    process = subprocess.Popen(
        [DORA, "run", "flow.yml"],
        cwd=workspace.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        assert "tick" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr.read().startswith("stopping (signal SIGINT)")


def test_a_full_disk_does_not_stop_the_dataflow(workspace: Workspace) -> None:
    one_node(workspace, WAITING)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [DORA, "run", "flow.yml", "--stop-after", "200ms"],
            cwd=workspace.path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("cannot write to standard output (No space left on device): ")
    logs = run_dora("logs", "--local", cwd=workspace.path).succeeded()
    assert "stopped by MANUAL" in logs.stdout


def test_output_errors_do_not_change_the_exit_code(workspace: Workspace) -> None:
    one_node(workspace, WAITING)
    command = [str(DORA), "run", "flow.yml", "--stop-after", "200ms"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=workspace.path, stdout=full, stderr=full, check=False)
    assert done.returncode == 0


def test_a_dataflow_runs_without_log_files(talk: Workspace) -> None:
    (talk.path / "out").write_text("not a folder")
    shown = run_dora("run", "flow.yml", cwd=talk.path).succeeded()
    assert shown.stderr == ""
    assert "stdout listener: received in" in shown.stdout
    assert "cannot write the log file" in shown.stdout


def test_an_exhausted_file_limit_is_reported_with_the_remedy(workspace: Workspace) -> None:
    workspace.node("n", WAITING)
    outputs = [f"o{number}" for number in range(50)]
    inputs = {name: f"n/{name}" for name in outputs}
    node = {"id": "n", "path": "n.py", "inputs": inputs, "outputs": outputs}
    workspace.dataflow({"nodes": [node]}, "flow.yml")
    done = subprocess.run(
        ["sh", "-c", f'ulimit -n 128; exec "{DORA}" run flow.yml'],
        cwd=workspace.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "raise the limit (`ulimit -n`)" in done.stderr
    assert len(done.stderr.splitlines()) == 2, done.stderr


def test_closed_streams_and_terminals_without_unicode(workspace: Workspace) -> None:
    one_node(workspace, CRASHING)
    line = f'"{DORA}" run flow.yml >&- 2>&-'
    assert subprocess.run(["sh", "-c", line], cwd=workspace.path, check=False).returncode == 1
    shown = run_dora("run", "flow.yml", cwd=workspace.path, env={"PYTHONIOENCODING": "ascii"})
    assert "\\u2502 out of paper" in shown.exited(1).stderr


def test_shell_nodes_need_permission(workspace: Workspace) -> None:
    workspace.dataflow({"nodes": [{"id": "n", "path": "shell", "args": "echo $COLOUR"}]}, "f.yml")
    env = {"COLOUR": "red"}
    refused = run_dora("run", "f.yml", cwd=workspace.path, env=env).exited(1)
    assert "shell nodes are disabled" in refused.stderr
    assert "--allow-shell-nodes" in refused.stderr
    allowed = run_dora("run", "f.yml", "--allow-shell-nodes", cwd=workspace.path, env=env)
    assert "n: red\n" in allowed.succeeded().stdout
    env |= {"DORA_ALLOW_SHELL_NODES": "true"}
    assert "n: red\n" in run_dora("run", "f.yml", cwd=workspace.path, env=env).succeeded().stdout


def test_exit_when_nodes_finish_overrides_the_file(workspace: Workspace) -> None:
    workspace.node("talker", TALKER)
    workspace.node("n", WAITING)
    nodes = [
        {"id": "talker", "path": "talker.py", "outputs": ["words"]},
        {
            "id": "n",
            "path": "n.py",
            "inputs": {"in": "talker/words", "tick": "dora/timer/secs/60"},
        },
    ]
    workspace.dataflow({"nodes": nodes}, "plain.yml")
    workspace.dataflow({"nodes": nodes, "exit_when_nodes_finish": True}, "finish.yml")
    shown = run_dora("run", "--exit-when-nodes-finish", "plain.yml", cwd=workspace.path)
    assert "n: stopped by ALL_INPUTS_CLOSED\n" in shown.succeeded().stdout
    words = ("--exit-when-nodes-finish=false", "--stop-after", "500ms")
    shown = run_dora("run", "finish.yml", *words, cwd=workspace.path)
    assert "n: stopped by MANUAL\n" in shown.succeeded().stdout
    assert run_dora("run", "--exit-when-nodes-finish=maybe", "plain.yml").code == 2


def test_deploy_is_ignored_with_a_note(workspace: Workspace) -> None:
    one_node(workspace, "print('here')", inputs={}, deploy={"machine": "elsewhere"})
    shown = run_dora("run", "flow.yml", cwd=workspace.path).succeeded()
    assert without_times(shown.stdout) == "stdout n: here\n"
    assert shown.stderr == (
        "note: `deploy` is ignored by `dora run`; all nodes run on this machine\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env", "A"], "'A': expected KEY=VALUE"),
        (["--stop-after", "soon"], "'soon' is not a duration"),
        (["--log-level", "loud"], "'loud' is not a log level"),
        (["--log-filter", "n"], "'n': expected node=level"),
        (["--locked", "--write-lockfile"], "cannot be used together"),
    ],
)
def test_wrong_usage(talk: Workspace, words: list[str], message: str) -> None:
    shown = run_dora("run", "flow.yml", *words, cwd=talk.path).exited(2)
    assert message in shown.stderr


def test_a_bad_setting_in_the_environment_is_a_usage_error(talk: Workspace) -> None:
    shown = run_dora("run", "flow.yml", cwd=talk.path, env={"DORA_LOG_LEVEL": "loud"}).exited(2)
    assert "'loud' is not a log level" in shown.stderr


def test_a_new_dataflow_runs_to_its_end(tmp_path: Path) -> None:
    run_dora("new", "hello", cwd=tmp_path).succeeded()
    shown = run_dora("run", "dataflow.yml", cwd=tmp_path / "hello").succeeded()
    assert "listener: first: hello from first, number 10\n" in shown.stdout
    assert shown.stdout.endswith("listener: received 20 greetings\n")


def test_run_imports_no_unneeded_modules(talk: Workspace) -> None:
    """Imports take about half of the 0.6 s in which two nodes must start and end."""
    program = (
        "import sys; from dora_cli.main import main; code = main(['run', 'flow.yml']);"
        "heavy = ('rich', 'pyarrow', 'numpy', 'websockets', 'paramiko', 'zenoh', 'starlette',"
        " 'uvicorn', 'dora_coordinator', 'psutil', 'dora_daemon.build.builder', 'urllib.request',"
        " 'dora_config.protocol.runner', 'dora_daemon.link.protocol.messages');"
        "print([n for n in heavy if n in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=talk.path,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "[]\n"
