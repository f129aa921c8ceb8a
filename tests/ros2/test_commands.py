"""`dora ros2` beside a robot: a session of ours that uses only what rmw_zenoh has."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from subprocess import PIPE
from typing import Any

import pytest
from ros2.routers import Router, free_port, running_router
from support.waiting import wait_until

from dora_ros2 import commands, plugin
from dora_ros2.connection import RosNode
from dora_ros2.types import Types
from dora_ros2.zenoh.actions import ActionServer, GoalState, ServerGoal
from dora_ros2.zenoh.endpoints import ServiceRequest
from dora_ros2.zenoh.graph import Profile
from dora_ros2.zenoh.node_services import ParameterServer, serve_descriptions
from dora_ros2.zenoh.session import ZenohSession
from dora_ros2.zenoh.tokens import Attachment, Qos

TYPES = Types()
STRING = TYPES.message("std_msgs/msg/String")
IMAGE = TYPES.message("sensor_msgs/msg/Image")
ADD = TYPES.service("example_interfaces/srv/AddTwoInts")
FIBONACCI = TYPES.action("example_interfaces/action/Fibonacci")
TEXT = STRING.description.concatenated_text.splitlines()
Run = Callable[..., list[str]]
INTERRUPTED_FINALIZER = """
import os, signal

class Finalizer:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

def send_goal(*values, send=commands.ActionClient.send_goal, **options):
    sent = send(*values, **options)
    Finalizer()
    return sent

commands.ActionClient.send_goal = send_goal
"""


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    with running_router() as running:
        yield running


@pytest.fixture
def robot(router: Router) -> Iterator[RosNode]:
    """A node with a topic, a service, an action and parameters."""

    def add(request: ServiceRequest) -> None:
        numbers = ADD.request.decode(request.payload).to_pylist()[0]
        request.reply(ADD.response.encode({"sum": numbers["a"] + numbers["b"]}))

    def count(goal: ServerGoal) -> None:
        goal.accept()
        goal.feedback({"sequence": [0]})
        order = goal.goal[0].as_py()["order"]
        end = GoalState.SUCCEEDED if order > 0 else GoalState.ABORTED
        goal.finish(end, {"sequence": [0, 1]})

    with router.open(profile=Profile.REP2016) as session:
        node = RosNode(session, "turtle", "/sim")
        kept = Qos(transient_local=True, depth=1)
        node.publisher("/description", STRING, kept).publish(STRING.encode({"data": "ü"}))
        node.service_server("add", ADD, add)
        ActionServer(node, "count", FIBONACCI, count)
        ParameterServer(node, TYPES, {"rate": 10, "frame": "map"})
        serve_descriptions(node, TYPES.description)
        yield node


def session_of(node: RosNode) -> ZenohSession:
    assert isinstance(node.connection, ZenohSession)
    return node.connection


@pytest.fixture
def run(router: Router, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; return the lines that it prints."""

    def run(*words: str, code: int = 0) -> list[str]:
        assert plugin.run([*words, "--router", router.endpoint]) == code
        return capsys.readouterr().out.splitlines()

    return run


def test_router(capsys: pytest.CaptureFixture[str]) -> None:
    """A router for a computer without ROS."""
    port = free_port()
    words = ["router", "--listen", f"tcp/127.0.0.1:{port}"]
    command = [sys.executable, "-m", "dora_config.launcher", "ros2", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == (
            f"the router listens at tcp/127.0.0.1:{port}; Ctrl-C ends it\n"
        )
        assert plugin.run(words) == 1
        assert f"cannot listen at tcp/127.0.0.1:{port}" in capsys.readouterr().err
        listed = ["topics", "--router", f"tcp/127.0.0.1:{port}"]
        assert plugin.run(listed) == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_lists(robot: RosNode, run: Run) -> None:
    assert run("topics")[1].split() == [
        *("/description", "std_msgs/msg/String", "1", "0"),
        *("reliable,", "transient", "local,", "keep", "last", "1"),
    ]
    [node] = [json.loads(line) for line in run("nodes", "--json")]
    assert node == {"node": "/sim/turtle", "endpoints": 15, "session": robot.token.zid}
    assert run("services")[1].split() == ["/sim/add", ADD.name, "1", "0"]
    assert run("actions")[1].split() == [
        *("/sim/count", "example_interfaces/action/Fibonacci", "1", "0")
    ]


def test_lists_are_complete_without_a_pause(
    robot: RosNode, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine under load the graph arrives after any pause."""
    monkeypatch.setattr(commands, "_QUIET_SECONDS", 0.0)
    assert robot.full_name in "\n".join(run("nodes"))


def test_echo_receives_kept_messages(robot: RosNode, run: Run) -> None:
    assert run("echo", "/description", "-n", "1") == ['{"data": "ü"}']
    assert run("echo", "/description", "std_msgs/Bool", code=1) == []  # it has another type


def test_echo_shortens_lists(robot: RosNode, run: Run) -> None:
    publisher = robot.publisher("/image", IMAGE, Qos(transient_local=True))
    publisher.publish(IMAGE.encode({"width": 9, "data": bytes(100)}))
    [line] = run("echo", "/image", "-n", "1")
    assert json.loads(line)["data"] == [*([0] * 16), "... 100 items"]
    [line] = run("echo", "/image", "-n", "1", "--full")
    assert json.loads(line)["data"] == [0] * 100


def test_types(robot: RosNode, run: Run) -> None:
    assert run("type", "/description") == [f"# std_msgs/msg/String {STRING.hash}", *TEXT]
    assert run("type", "std_msgs/String") == TEXT
    assert run("type", "/sim/add")[0] == f"# {ADD.name} {ADD.hash}"


def test_types_of_services_and_actions(
    router: Router, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    add = ["int64 a", "int64 b", "---", "int64 sum"]
    for name in ("example_interfaces/AddTwoInts", "example_interfaces/srv/AddTwoInts"):
        assert run("type", name) == add
    lines = run("type", "nav_msgs/GetPlan")
    assert lines.count("---") == 1
    assert "MSG: nav_msgs/Path" in lines
    assert run("type", "example_interfaces/Fibonacci").count("---") == 2
    assert plugin.run(["pub", "/x", "std_msgs/String", "{}", "--rate", "-1"]) == 2
    assert "expected a number of at least 0, found -1" in capsys.readouterr().err
    assert plugin.run(["topics", "--types", "/none"]) == 2
    assert "'--types': /none is not a folder" in capsys.readouterr().err


def test_publish_call_and_goals(robot: RosNode, run: Run) -> None:
    received: list[tuple[bytes, Attachment | None]] = []
    robot.subscription("/chat", STRING, lambda *got: received.append(got))
    assert run("pub", "/chat", "std_msgs/String", '{"data": "hi"}') == ["published 1 to /chat"]
    wait_until(lambda: received, what="the message")
    assert STRING.decode(received[0][0]).to_pylist() == [{"data": "hi"}]
    assert run("call", "/sim/add", '{"a": 1, "b": 41}') == ['{"sum": 42}']
    assert run("send-goal", "/sim/count", '{"order": 2}') == [
        'feedback {"sequence": [0]}',
        'succeeded {"sequence": [0, 1]}',
    ]
    aborted = ['feedback {"sequence": [0]}', 'aborted {"sequence": [0, 1]}']
    assert run("send-goal", "/sim/count", '{"order": -1}', code=1) == aborted


def test_commands_wait_for_a_server(robot: RosNode, run: Run) -> None:
    def accept(goal: ServerGoal) -> None:
        goal.accept()
        goal.finish(GoalState.SUCCEEDED, {"sequence": []})

    def serve() -> None:
        robot.connection.wait_for(lambda graph: "send_goal" in str(graph.nodes()), 30)
        ActionServer(robot, "late", FIBONACCI, accept)

    serving = threading.Thread(target=serve)
    serving.start()
    assert run("send-goal", "/sim/late", "{}") == ['succeeded {"sequence": []}']
    serving.join()


def test_types_of_the_other_side(robot: RosNode, run: Run, tmp_path: Path) -> None:
    """Neither side of these has a definition in a folder of the command."""
    (tmp_path / "own" / "msg").mkdir(parents=True)
    (tmp_path / "own" / "msg" / "Own.msg").write_text("float64 x\n")
    (tmp_path / "own" / "action").mkdir()
    (tmp_path / "own" / "action" / "Go.action").write_text("int32 a\n---\nfloat64 b\n---\n")
    types = Types([tmp_path])
    own, go = types.message("own/Own"), types.action("own/Go")
    with ZenohSession(router=session_of(robot).router, environ={}) as session:
        node = RosNode(session, "own")
        serve_descriptions(node, types.description)
        received: SimpleQueue[Any] = SimpleQueue()
        node.subscription("/own", own, lambda *got: received.put(got))

        def accept(goal: ServerGoal) -> None:
            goal.accept()
            goal.finish(GoalState.SUCCEEDED, {"b": math.nan})

        ActionServer(node, "go", go, accept)
        kept = Qos(transient_local=True)
        node.publisher("/odd", own, kept).publish(own.encode({"x": -math.inf}))
        assert run("pub", "/own", "own/Own", '{"x": 1}') == ["published 1 to /own"]
        assert own.decode(received.get(timeout=20)[0]).to_pylist() == [{"x": 1.0}]
        assert run("send-goal", "/go", '{"a": 1}') == ['succeeded {"b": "NaN"}']
        assert run("echo", "/odd", "-n", "1") == ['{"x": "-Infinity"}']
        [status] = run("echo", "/go/_action/status", "-n", "1", "--full")
        assert json.loads(status)["status_list"][0]["status"] == GoalState.SUCCEEDED
        run("pub", "/own", "std_msgs/String", "{}", code=1)  # the subscription has another type


def test_signals_end_a_command(robot: RosNode, router: Router) -> None:
    """Also where a KeyboardInterrupt would be lost; a goal that was sent is canceled."""
    goals: SimpleQueue[ServerGoal] = SimpleQueue()

    def accept(goal: ServerGoal) -> None:
        goal.accept()
        goals.put(goal)

    ActionServer(robot, "long", FIBONACCI, accept)
    with (
        _command(router, "send-goal", "/sim/long", "{}", program=INTERRUPTED_FINALIZER) as sent,
        _command(router, "echo", "/description") as echo,
    ):
        assert echo.stdout is not None
        assert echo.stdout.readline() == '{"data": "ü"}\n'
        echo.terminate()
        assert echo.communicate(timeout=30) == ("", "")
        assert sent.communicate(timeout=30) == ("", "canceling the goal\n")
    assert (sent.returncode, echo.returncode) == (130, 143)
    assert goals.get(timeout=30).state is GoalState.CANCELING


@contextmanager
def _command(router: Router, *words: str, program: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process, after the statements of `program`."""
    words = (*words, "--router", router.endpoint)
    program = (
        f"from dora_ros2 import commands, plugin\n{program}\nraise SystemExit(plugin.run({words}))"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_names_cannot_control_the_terminal(robot: RosNode, run: Run) -> None:
    token = str(replace(robot.token, name="\x1b[31mred\u202e", nid="9"))
    held = session_of(robot).raw.liveliness().declare_token(token)
    shown = "\n".join(run("nodes"))
    assert "/sim/red\\u202e " in shown  # the colour is left out
    assert "\x1b" not in shown
    held.undeclare()  # type: ignore[no-untyped-call]


def test_parameters(robot: RosNode, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("param", "/sim/turtle") == ["rate: 10", 'frame: "map"']
    assert run("param", "/sim/turtle", "rate", "20") == ["rate: 20"]
    assert run("param", "/sim/turtle", "rate", '"x"', code=1) == []
    assert run("param", "/sim/turtle", "rate") == ["rate: 20"]
    assert plugin.run(["param", "/sim/turtle", "rat", "--router", session_of(robot).router]) == 1
    said = '/sim/turtle has no parameter rat (did you mean "rate"?)'
    assert said in capsys.readouterr().err


def test_rates(robot: RosNode, run: Run) -> None:
    publisher = robot.publisher("/pose", STRING)
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(0.01):
            publisher.publish(STRING.encode({"data": "x"}))

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        [_, line] = run("hz", "/pose", "-n", "2")
    finally:
        ended.set()
        thread.join()
    assert " Hz, longest gap " in line
    lines = iter(run("hz", "/pose", "-n", "2"))
    assert list(lines) == ["no new messages"] * 2


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("pub", "/chat", "std_msgs/String", "{data: 1}"), "is not valid JSON"),
        (("pub", "/chat", "std_msgs/String", '{"dat": 1}'), 'has no field "dat"'),
        (("pub", "/none", "std_msgs/String", "{}", "--timeout", "1"), "has no subscription"),
        (("echo", "/none", "--timeout", "1"), "no publisher of /none within 1 s"),
        (("pub", "/none", "std_msgs/String", "{}", "--timeout", "1"), "waits for a subscription"),
        (("call", "/none", "{}", "--timeout", "1"), "no server of /none; `dora ros2 services`"),
        (("call", "/none", "{}", "--timeout", "1"), "dora ros2 waits for a server of /none"),
        (
            ("send-goal", "/none", "{}", "--timeout", "1"),
            "no server of /none; `dora ros2 actions`",
        ),
        (("type", "/none"), "no topic or service /none"),
        (("topics", "--domain", "999"), '"999" is not a valid ROS domain'),
        (("topics", "--timeout", "0.1", "--router", "tcp/127.0.0.1:9"), "no Zenoh router answers"),
        (("topics", "--config", "/none"), "cannot read the Zenoh session file /none"),
    ],
)
def test_mistakes(
    router: Router, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], problem: str
) -> None:
    assert plugin.run([words[0], "--router", router.endpoint, *words[1:]]) == 1
    error = capsys.readouterr().err
    assert "[ERROR]\n" in error
    assert problem in error


def test_check(robot: RosNode, run: Run, router: Router, tmp_path: Path) -> None:
    (tmp_path / "robot_msgs" / "msg").mkdir(parents=True)
    (tmp_path / "robot_msgs" / "msg" / "Pose.msg").write_text("float64 x\n")
    own = Types([tmp_path]).message("robot_msgs/Pose")
    publisher = robot.publisher("/pose", own)
    robot.subscription("/pose", STRING, lambda *_: None)
    old = b"\x0fsequence_number" + bytes(8) + b"\x10source_timestamp" + bytes(8)
    old += b"\x0asource_gid\x10" + bytes(16)
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(0.02):
            publisher.publish(own.encode({"x": 1.0}))
            session_of(robot).raw.put("0/old/x/RIHS01_0", b"", attachment=old)

    thread = threading.Thread(target=publish)
    thread.start()
    capture = tmp_path / "capture.json"
    try:
        with ZenohSession(domain=7, router=router.endpoint, environ={}) as other:
            RosNode(other, "elsewhere")
            lines = run("check", "--capture", str(capture), "--seconds", "1")
    finally:
        ended.set()
        thread.join()
    text = "\n".join(lines)
    assert lines[0] == f"router     {router.endpoint} answers"
    assert lines[1] == (
        "domain     0, 1 nodes; others: 7 (1 nodes): choose one with ROS_DOMAIN_ID or --domain"
    )
    assert "profile    rep2016" in text
    assert "\n  robot_msgs/msg/Pose is not installed; taken from /sim/turtle" in text
    assert f"no messages between endpoints whose types differ: {own.name} {own.hash}" in text
    assert "1 topics have an attachment of rmw_zenoh 0.2.3 or older" in text
    captured = json.loads(capture.read_text())
    assert len([token for token in captured["tokens"] if "/NN/" in token]) == 1
    key = f"0/pose/{own.dds_name}/{own.hash}"
    assert len(bytes.fromhex(captured["messages"][key]["attachment"])) == 33


def test_check_without_a_router(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dora_ros2.commands._ROUTER_SECONDS", 0.5)
    capture = str(tmp_path / "capture.json")
    words = ["check", "--router", "tcp/127.0.0.1:1", "--capture", capture, "--seconds", "0.1"]
    assert plugin.run(words) == 1
    out = capsys.readouterr().out
    assert out.startswith("router     no Zenoh router answers at tcp/127.0.0.1:1; start the router")
    monkeypatch.setenv("ZENOH_CONFIG_OVERRIDE", 'mode="peer"')
    assert plugin.run(words) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("router     none answers at tcp/127.0.0.1:1; start the router of ROS")


def test_the_help_of_dora_imports_neither_zenoh_nor_pyarrow() -> None:
    code = (
        "import sys, dora_ros2.plugin\n"
        "print([n for n in ('zenoh', 'pyarrow', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
