"""Nodes in processes of their own: start, end, fork, backpressure, logging, operators."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pyarrow as pa
import pytest
from support.fake_runner import FakeRunner
from support.waiting import wait_until

import dora_node_api
from dora_node_api import Node
from dora_node_api.protocol import messages as control

Open = Callable[[str], Node]
Spawn = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.integration

SOURCES = Path(dora_node_api.__file__).parents[1]


@pytest.fixture
def spawn(runner: FakeRunner, tmp_path: Path) -> Iterator[Spawn]:
    """Starts a node of the fake runner with this code; every process is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(node_id: str, code: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", dedent(code)],
            env={**os.environ, **runner.environment(node_id), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the process's end and return what it printed."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    return out


def test_the_last_message_arrives_and_the_process_ends_at_once(
    runner: FakeRunner, open_node: Open, spawn: Spawn
) -> None:
    runner.connect("a/out", "b/in", queue_size=1000)
    b = open_node("b")
    code = """
        import threading, time
        from dora import Node
        import pyarrow as pa
        node = Node()
        for number in range(500):
            node.send_output("out", pa.array([number]))
        assert threading.active_count() == 1
        print(time.monotonic())
    """
    process = spawn("a", code)
    printed = finish(process)
    assert time.monotonic() - float(printed) < 20
    wait_until(lambda: runner.nodes["a"].left, what="a reports that it leaves")
    assert [event["value"][0].as_py() for event in b.drain()] == list(range(500))


def test_nodes_wait_at_the_start_barrier(runner: FakeRunner, spawn: Spawn) -> None:
    runner.auto_go = False
    runner.add_node("a")
    process = spawn("a", "from dora import Node; Node(); print('through')")
    runner.wait_connected("a")
    assert process.poll() is None
    runner.go()
    assert finish(process) == "through\n"


@pytest.mark.parametrize(
    ("message", "sentence"),
    [(control.Refused("node `x` exited before connecting"), "exited before connecting"),
     (None, "runner ended, or closed")],
)  # fmt: skip
def test_a_refused_node_reports_the_reason(
    runner: FakeRunner, spawn: Spawn, message: control.Refused | None, sentence: str
) -> None:
    runner.auto_go = False
    runner.add_node("a")
    process = spawn("a", "from dora import Node; Node()")
    runner.wait_connected("a")
    if message is None:
        runner.disconnect("a")
    else:
        runner.send("a", message)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "SetUpError" in err
    assert sentence in err


def test_a_node_with_timers_needs_no_pyarrow(runner: FakeRunner, spawn: Spawn) -> None:
    runner.add_node("a", outputs=("out",))
    runner.add_timer("a", "tick", 0.01)
    code = """
        import sys
        from dora import Node
        heavy = {"asyncio", "logging", "pyarrow", "numpy", "pathlib"}
        print(sorted(heavy & set(sys.modules)))
        node = Node()
        tick = next(node)
        typed = next(node.events())
        node.send_output("out", b"x", {**tick["metadata"]})
        print(tick["type"], typed.id, sorted({"asyncio", "pyarrow", "numpy"} & set(sys.modules)))
        print(tick["value"].type, len(typed.value), "pyarrow" in sys.modules)
    """
    assert finish(spawn("a", code)) == "[]\nINPUT tick []\nnull 0 True\n"


def test_a_node_can_read_before_it_counts_as_ready(
    runner: FakeRunner, open_node: Open, spawn: Spawn, tmp_path: Path
) -> None:
    """With pyarrow, and without pandas, which pyarrow imports in some of its functions."""
    (tmp_path / "pandas.py").write_text("print('pandas is imported', flush=True)")
    runner.auto_go = False
    runner.connect("a/out", "b/in")
    runner.connect("b/out", "a/back")
    code = """
        import sys
        from dora import Node
        node = Node()
        before = set(sys.modules)
        event = next(node)
        node.send_output("out", event["value"])
        print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
    """
    process = spawn("b", code, PYTHONPATH=str(tmp_path))
    runner.wait_connected("b")
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "pyarrow/lib." in maps
    runner.go()
    a = open_node("a")
    a.send_output("out", pa.array([1, 2, 3]))
    event = a.next(timeout=60)
    assert event is not None
    assert event["value"].to_pylist() == [1, 2, 3]
    assert finish(process) == "[]\n"


@pytest.mark.parametrize("greeted", [True, False])
def test_a_node_whose_dataflow_does_not_start_prints_one_line(
    runner: FakeRunner, spawn: Spawn, greeted: bool
) -> None:
    runner.auto_go = False
    runner.add_node("a")
    code = """
        from dora import Node
        try:
            Node()
        except RuntimeError as error:
            print("caught", error)
            raise
    """
    refused = control.Refused("node `x` failed", cancelled=True)
    runner.refusal = None if greeted else refused
    process = spawn("a", code)
    if greeted:
        runner.wait_connected("a")
        runner.send("a", refused)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (out, err) == ("caught node `x` failed\n", "node `x` failed\n")


def test_plain_folders_on_pythonpath_are_enough(runner: FakeRunner, tmp_path: Path) -> None:
    """No installed wheel of ours, and another `dora` installed beside us: ours is taken."""
    other = tmp_path / "site-packages"
    (other / "dora").mkdir(parents=True)
    (other / "dora" / "__init__.py").write_text("raise ImportError('the wrong dora')")
    front = tmp_path / "front"
    front.mkdir()
    for name in ("dora", "dora_node_api"):
        (front / name).symlink_to(SOURCES / name)
    runner.add_node("a", outputs=("out",))
    code = "import sys; sys.path.append(sys.argv[1]); import dora; n = dora.Node();" + (
        "n.send_output('out', b'x'); print(dora.__version__, n.node_config()['outputs'])"
    )
    pyarrow = str(Path(pa.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, pyarrow],
        env={**runner.environment("a"), "PYTHONPATH": f"{front}:{other}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{dora_node_api.__version__} ['out']\n", done.stderr


def test_a_forked_child_may_not_use_the_node(
    runner: FakeRunner, open_node: Open, spawn: Spawn
) -> None:
    runner.connect("a/out", "b/in", queue_size=100)
    a = open_node("a")
    code = """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from dora import Node
        node = Node()
        values = [node.next()["value"] for _ in range(20)]
        child = os.fork()
        if child == 0:
            warned = 0
            for use in (
                node.next, node.try_recv, node.drain, node.is_empty, lambda: next(node),
                lambda: node.send_output("out", b""), lambda: node.send_output_raw("out", 1),
            ):
                try:
                    use()
                except RuntimeError as error:
                    warned += "spawn" in str(error)
            values.clear()
            del node
            sys.exit(warned)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print([value[0].as_py() for value in values] == list(range(20)))
        print(node.next()["type"], node.next()["type"])
    """
    process = spawn("b", code)
    for number in range(20):
        a.send_output("out", pa.array([number]))
    runner.wait_connected("b")
    wait_until(lambda: process.poll() is not None or _reads(process, "True"), what="the child ends")
    a.send_output("out", b"x")
    runner.edges[0].keeper.announce_closed()
    assert finish(process).splitlines()[-1] == "INPUT INPUT_CLOSED"
    assert not runner.messages("b", control.CloseOutputs)


def _reads(process: subprocess.Popen[str], word: str) -> bool:
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(2)]
    assert lines == ["7", word], process.stderr and process.stderr.read()
    return True


def test_interrupt_is_a_keyboard_interrupt(runner: FakeRunner, spawn: Spawn) -> None:
    runner.add_node("a")
    runner.add_timer("a", "tick", 3600)
    code = """
        from dora import Node
        node = Node()
        node.next()
        try:
            print("ready")
            node.next()
        except KeyboardInterrupt:
            print("interrupted", node.next(timeout=0)["type"])
    """
    process = spawn("a", code)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert finish(process) == "interrupted ERROR\n"


def test_backpressure_waits_and_stop_wakes_it(
    runner: FakeRunner, open_node: Open, spawn: Spawn
) -> None:
    edge = runner.connect("a/out", "b/in", queue_size=3, queue_policy="backpressure")
    b = open_node("b")
    code = """
        from dora import Node
        import pyarrow as pa
        node = Node()
        for number in range(50):
            node.send_output("out", pa.array([number]))
        print(node.next()["type"])
    """
    process = spawn("a", code)
    got = []
    for _ in range(30):
        event = b.next(timeout=60)
        assert event is not None
        assert event["type"] == "INPUT", event
        got.append(event["value"][0].as_py())
    assert got == list(range(30))
    wait_until(lambda: edge.keeper.ends.depth() == 3, what="the queue is full again")
    assert process.poll() is None
    runner.send("a", control.StopNode())
    assert finish(process) == "STOP\n"


def test_a_cycle_of_full_queues_is_an_error_that_names_it(
    runner: FakeRunner, open_node: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dora_node_api.protocol.connection.DEADLOCK_AFTER", 0.2)
    runner.add_node("a", cycles=(("a", "b"),))
    runner.connect("a/out", "b/in", queue_size=1, queue_policy="backpressure")
    runner.connect("b/out", "a/in", queue_size=1, queue_policy="backpressure")
    a, b = open_node("a"), open_node("b")
    b.send_output("out", b"")
    a.send_output("out", b"")
    with pytest.raises(dora_node_api.BackpressureDeadlock, match="a -> b -> a"):
        a.send_output("out", b"")


def test_log_entries_are_lines_of_json(runner: FakeRunner, spawn: Spawn) -> None:
    runner.add_node("a")
    code = """
        import logging
        from dora import Node
        node = Node()
        logging.info("first %s", 1)
        logging.getLogger("my.module").error("second", extra={"speed": 3})
        logging.debug("not shown")
        try:
            1 / 0
        except ZeroDivisionError:
            logging.exception("third")
        logging.basicConfig(level=logging.DEBUG)
        logging.debug("fourth")
        node.log("strange", "fifth", target="t", fields={"a": 1})
        node.log_error("sixth", fields={"big": "x" * 70_000})
        print("plain")
    """
    *lines, plain = finish(spawn("a", code)).splitlines()
    entries = [json.loads(line) for line in lines]
    assert plain == "plain"
    assert [(entry["level"], entry["message"].partition("\n")[0]) for entry in entries] == [
        ("info", "first 1"),
        ("error", "second"),
        ("error", "third"),
        ("debug", "fourth"),
        ("info", "fifth"),
        ("error", "sixth"),
    ]
    assert all(entry["node_id"] == "a" for entry in entries)
    assert entries[0]["target"] == "root"
    assert entries[1]["target"] == "my.module"
    assert entries[1]["fields"] == {"speed": 3}
    assert entries[0]["line"] == 5
    assert "ZeroDivisionError" in entries[2]["message"]
    assert entries[4]["fields"] == {"a": 1}
    assert entries[5]["fields"] == {"dora.fields_dropped": 70_010}


def logged(runner: FakeRunner, spawn: Spawn, code: str) -> list[tuple[str, str, str]]:
    """Level, target and message of all that a node prints."""
    runner.add_node("a")
    printed = finish(spawn("a", "import logging, logging.config, logging.handlers, sys\n" + code))
    entries = [json.loads(line) for line in printed.splitlines()]
    return [(entry["level"], entry["target"], entry["message"]) for entry in entries]


OWN_CONFIGURATION = [
    "logging.basicConfig(level=logging.INFO)",
    'logging.basicConfig(stream=sys.stdout, format="own %(message)s", level=logging.INFO)',
    "logging.basicConfig(filename='own.log', level=logging.INFO)",
    "logging.basicConfig(level=logging.INFO, force=True)",
    "from rich.logging import RichHandler;"
    " logging.basicConfig(handlers=[RichHandler()], level=logging.INFO)",
    "logging.config.dictConfig({'version': 1, 'handlers': {'console':"
    " {'class': 'logging.StreamHandler'}}, 'root': {'handlers': ['console'], 'level': 'INFO'}})",
    "logging.config.dictConfig({'version': 1, 'root': {'level': 'INFO'}})",
    "logging.getLogger('core').addHandler(logging.StreamHandler());"
    " logging.getLogger().setLevel(logging.INFO)",
    "own = logging.getLogger('core'); own.propagate = False; own.setLevel(logging.INFO);"
    " own.addHandler(logging.StreamHandler(sys.stdout)); own.addHandler(logging.StreamHandler())",
    "import queue; waiting = queue.Queue(); handler = logging.handlers.QueueHandler(waiting);"
    " logging.basicConfig(handlers=[handler], level=logging.INFO);"
    " logging.handlers.QueueListener(waiting, logging.StreamHandler()).start()",
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("own", OWN_CONFIGURATION)
def test_each_record_is_one_entry_with_its_level_whatever_is_configured(
    runner: FakeRunner,
    spawn: Spawn,
    own: str,
    when: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = (
        "from dora import Node\n"
        + "\n".join([own, "node = Node()"] if when == "before" else ["node = Node()", own])
        + "\nlog = logging.getLogger('core')\nlog.debug('no')\nlog.info('hello')\nlog.error('bad')"
    )
    assert logged(runner, spawn, code) == [("info", "core", "hello"), ("error", "core", "bad")]
    if "filename" in own:
        assert (tmp_path / "own.log").read_text() == "INFO:core:hello\nERROR:core:bad\n"


def test_level_and_filters_of_a_handler_that_prints_are_kept(
    runner: FakeRunner, spawn: Spawn
) -> None:
    code = """
from dora import Node
console = logging.StreamHandler()
console.setLevel(logging.ERROR)
logging.basicConfig(handlers=[console], level=logging.DEBUG)
node = Node()
logging.info("quiet")
logging.error("loud")
"""
    assert logged(runner, spawn, code) == [("error", "root", "loud")]


def test_nothing_else_reaches_standard_error(runner: FakeRunner, spawn: Spawn) -> None:
    runner.add_node("a")
    code = """
        import logging
        from dora import Node
        logging.basicConfig(level=logging.INFO)
        node = Node()
        logging.info("hello")
        silent = logging.getLogger("silent")
        silent.propagate = False
        silent.warning("without a handler")
    """
    process = spawn("a", code)
    out, err = process.communicate(timeout=60)
    assert err == ""
    assert [json.loads(line)["message"] for line in out.splitlines()] == [
        "hello",
        "without a handler",
    ]


def test_handlers_of_a_dynamic_node_print_to_its_terminal(runner: FakeRunner, spawn: Spawn) -> None:
    runner.add_node("a", dynamic=True)
    code = """
        import logging, sys
        from dora import Node
        logging.basicConfig(stream=sys.stdout, format="own %(message)s", level=logging.INFO)
        node = Node()
        logging.info("hello")
    """
    assert finish(spawn("a", code)) == "own hello\n"


def test_rust_log_sets_the_level(runner: FakeRunner, spawn: Spawn) -> None:
    runner.add_node("a")
    code = """
        import logging
        from dora import Node
        node = Node()
        logging.info("quiet")
        logging.warning("loud")
    """
    process = spawn("a", code, RUST_LOG="zenoh=debug,warn")
    assert [json.loads(line)["message"] for line in finish(process).splitlines()] == ["loud"]


def test_operators_run_as_a_node(runner: FakeRunner, open_node: Open, tmp_path: Path) -> None:
    operator = tmp_path / "double.py"
    operator.write_text(
        dedent("""
        import pyarrow.compute as pc
        from dora import DoraStatus

        class Operator:
            def __init__(self):
                open("made", "x").close()

            def on_event(self, dora_event, send_output):
                if dora_event["type"] == "INPUT":
                    send_output("out", pc.multiply(dora_event["value"], 2), {"seen": True})
                return DoraStatus.CONTINUE
        """)
    )
    config = control.OperatorConfig(id="op", python=str(operator), outputs=("out",))
    runner.add_node("host", operators=(config,))
    runner.connect("a/out", "host/op/in")
    runner.connect("host/op/out", "a/back")
    runner.auto_go = False
    process = subprocess.Popen(
        [sys.executable, "-m", "dora_node_api.operators"],
        cwd=tmp_path,
        env={**os.environ, **runner.environment("host")},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        runner.wait_connected("host")
        assert (tmp_path / "made").exists()  # before it counts as ready
        runner.go()
        a = open_node("a")
        a.send_output("out", pa.array([21]))
        event = a.next(timeout=60)
        assert event is not None
        assert event["type"] == "INPUT", event
        assert event["value"].to_pylist() == [42]
        runner.edges[0].keeper.announce_closed()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    finally:
        process.kill()
        process.communicate()
