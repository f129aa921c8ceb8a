"""Operators: dispatch of events, statuses and exceptions."""

from __future__ import annotations

import os
import py_compile
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from dora_node_api.errors import OperatorError
from dora_node_api.operators import DoraStatus, OperatorHost, construct, load_class
from dora_node_api.protocol.messages import InputConfig, NodeConfig, OperatorConfig
from dora_node_api.testing import MockNode


class RecordingNode(MockNode):
    """Keeps any value that operators send, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, Any]] = []

    def send_output(
        self, output_id: str, data: Any, metadata: Mapping[str, Any] | None = None
    ) -> None:
        self.sent.append((output_id, data))


ECHO = """
    from dora import DoraStatus

    class Operator:
        def __init__(self):
            self.seen = []

        def on_event(self, dora_event, send_output):
            self.seen.append(dora_event)
            if dora_event["type"] == "INPUT":
                send_output("out", dora_event["value"], dora_event["metadata"])
                if dora_event["value"] == "boom":
                    raise ZeroDivisionError("boom")
                return {"stop": DoraStatus.STOP, "all": DoraStatus.STOP_ALL, "odd": 7}.get(
                    dora_event["value"], DoraStatus.CONTINUE
                )
            return DoraStatus.CONTINUE
"""


@pytest.fixture
def node() -> RecordingNode:
    return RecordingNode()


def host(node: RecordingNode, folder: Path, *ids: str, **config: Any) -> OperatorHost:
    """A host of operators that echo input `in` to output `out`."""
    inputs: list[InputConfig] = []
    operators = []
    for name in ids:
        path = folder / f"{name}.py"
        if not path.exists():
            path.write_text(dedent(ECHO))
        operators.append(OperatorConfig(id=name, python=str(path), outputs=("out",)))
        inputs.append(InputConfig(id=f"{name}/in", source="cam/image", source_node="cam"))
    everything: dict[str, Any] = {"inputs": tuple(inputs), "operators": tuple(operators), **config}
    whole = NodeConfig(dataflow_id="d", node_id="n", **everything)
    return OperatorHost(node, whole, construct(operators))


def message(operator: str, value: object) -> dict[str, Any]:
    return {
        "type": "INPUT",
        "id": f"{operator}/in",
        "value": value,
        "metadata": {},
        "kind": "dora",
    }


STOP = {"type": "STOP", "id": "MANUAL", "kind": "dora"}


def test_each_operator_gets_its_own_inputs_under_its_own_names(
    node: RecordingNode, tmp_path: Path
) -> None:
    running = host(node, tmp_path, "a", "b", descriptor={"nodes": []})
    running.handle(message("a", 1))
    running.handle(message("b", 2))
    assert node.sent == [("a/out", 1), ("b/out", 2)]
    first, second = (operator.object for operator in running.operators)
    assert [event["id"] for event in first.seen] == ["in"]
    assert [event["value"] for event in second.seen] == [2]
    assert first.dataflow_descriptor == {"nodes": []}


def test_stop_ends_one_operator(node: RecordingNode, tmp_path: Path) -> None:
    running = host(node, tmp_path, "a", "b")
    running.handle(message("a", "stop"))
    assert node.closed_outputs == ["a/out"]
    assert not running.ended
    running.handle(message("a", "more"))
    assert node.sent == [("a/out", "stop")]
    running.handle(message("b", "stop"))
    assert running.ended
    assert node.stop_reasons == []


def test_stop_all_stops_the_dataflow(node: RecordingNode, tmp_path: Path) -> None:
    running = host(node, tmp_path, "a", "b")
    running.handle(message("a", "all"))
    assert len(node.stop_reasons) == 1
    assert "`a`" in node.stop_reasons[0]
    running.handle(STOP)
    assert running.ended


def test_an_operator_ends_after_its_last_input(node: RecordingNode, tmp_path: Path) -> None:
    running = host(node, tmp_path, "a", "b")
    running.handle({"type": "INPUT_CLOSED", "id": "a/in", "kind": "dora"})
    running.handle({"type": "INPUT_ENDED", "id": "a/in", "kind": "dora"})
    seen = running.operators[0].object.seen
    assert [(event["type"], event["id"]) for event in seen] == [
        ("INPUT_CLOSED", "in"),
        ("STOP", "ALL_INPUTS_CLOSED"),
    ]
    assert node.closed_outputs == ["a/out"]
    assert running.operators[1].object.seen == []


def test_an_operator_continues_after_a_timeout_of_its_last_input(
    node: RecordingNode, tmp_path: Path
) -> None:
    running = host(node, tmp_path, "a")
    running.handle({"type": "INPUT_CLOSED", "id": "a/in", "kind": "dora"})
    running.handle({"type": "INPUT_RECOVERED", "id": "a/in", "kind": "dora"})
    running.handle(message("a", 1))
    assert node.sent == [("a/out", 1)]
    running.handle({"type": "INPUT_ENDED", "id": "a/in", "kind": "dora"})
    assert running.ended


def test_events_of_other_nodes_and_parameters(node: RecordingNode, tmp_path: Path) -> None:
    running = host(node, tmp_path, "a")
    failed = {
        "type": "NODE_FAILED",
        "id": "cam",
        "value": {
            "source_node_id": "cam",
            "error": "e",
            "affected_input_ids": ["a/in", "other/in"],
        },
        "kind": "dora",
    }
    running.handle(failed)
    running.handle({"type": "NODE_RESTARTED", "id": "cam", "kind": "dora"})
    running.handle({"type": "NODE_RESTARTED", "id": "elsewhere", "kind": "dora"})
    running.handle({"type": "PARAM_UPDATE", "id": "k", "value": 1, "kind": "dora"})
    seen = running.operators[0].object.seen
    assert [event["type"] for event in seen] == ["NODE_FAILED", "NODE_RESTARTED", "PARAM_UPDATE"]
    assert seen[0]["value"]["affected_input_ids"] == ["in"]


def test_an_exception_ends_the_node(node: RecordingNode, tmp_path: Path) -> None:
    running = host(node, tmp_path, "a")
    with pytest.raises(ZeroDivisionError):
        running.handle(message("a", "boom"))


def test_an_odd_return_value_is_an_error(node: RecordingNode, tmp_path: Path) -> None:
    running = host(node, tmp_path, "a")
    with pytest.raises(OperatorError, match="returned 7"):
        running.handle(message("a", "odd"))


def test_hot_reload_keeps_the_state_and_tolerates_exceptions(
    node: RecordingNode, tmp_path: Path
) -> None:
    running = host(node, tmp_path, "a")
    running.handle(message("a", 1))
    (tmp_path / "a.py").write_text(
        dedent(ECHO).replace('send_output("out"', 'send_output("new"') + "\n# longer\n"
    )
    running.handle({"type": "RELOAD", "id": "b", "kind": "dora"})
    running.handle(message("a", 2))
    running.handle({"type": "RELOAD", "id": "a", "kind": "dora"})
    running.handle(message("a", 3))
    assert node.sent == [("a/out", 1), ("a/out", 2), ("a/new", 3)]
    assert [event["value"] for event in running.operators[0].object.seen] == [1, 2, 3]
    running.handle(message("a", "boom"))
    assert "ZeroDivisionError" in node.logs[0]["message"]
    (tmp_path / "a.py").write_text("this is no Python")
    running.handle({"type": "RELOAD", "kind": "dora"})
    assert "SyntaxError" in node.logs[1]["message"]
    running.handle(message("a", 4))
    assert node.sent[-1] == ("a/new", 4)


def save(file: Path, text: str) -> None:
    """Write a file, with a time that is not rounded to a tick of the kernel."""
    file.write_text(text)
    now = time.time_ns()
    os.utime(file, ns=(now, now))


def test_a_reload_imports_changed_modules_again(node: RecordingNode, tmp_path: Path) -> None:
    package = tmp_path / "reloaded_package"
    package.mkdir()
    (package / "__init__.py").write_text("from reloaded_package.deep import VALUE")
    (package / "deep.py").write_text("VALUE = 'out'")
    running = host(node, tmp_path, "a", "b")
    text = dedent(ECHO).replace('"out"', "VALUE")
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("from reloaded_package import VALUE\n" + text)
    running.handle({"type": "RELOAD", "kind": "dora"})
    first = sys.modules["reloaded_package.deep"]
    running.handle(message("a", 1))
    running.handle({"type": "RELOAD", "kind": "dora"})
    assert sys.modules["reloaded_package.deep"] is first  # no module has changed
    save(package / "deep.py", "VALUE = ''.join(['new', 'er'])")
    running.handle({"type": "RELOAD", "kind": "dora"})
    running.handle(message("a", 2))
    assert node.sent == [("a/out", 1), ("a/newer", 2)]
    packages = [
        sys.modules[type(one.object).__module__].VALUE  # the operators share their modules
        for one in running.operators
    ]
    assert packages[0] is packages[1]
    save(package / "deep.py", "raise OSError")
    changed = sys.modules["reloaded_package.deep"]
    running.handle({"type": "RELOAD", "kind": "dora"})
    assert sys.modules["reloaded_package.deep"] is changed
    running.handle(message("a", 3))
    assert node.sent[-1] == ("a/newer", 3)


def test_a_reload_within_the_second_of_the_last_save(
    node: RecordingNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "a.py"
    file.write_text(dedent(ECHO))
    os.utime(file, (1.0, 1.0))
    running = host(node, tmp_path, "a")
    file.write_text(dedent(ECHO).replace('send_output("out"', 'send_output("new"'))
    os.utime(file, (1.5, 1.5))
    running.handle({"type": "RELOAD", "kind": "dora"})
    running.handle(message("a", 1))
    assert node.sent == [("a/new", 1)]


def test_a_compiled_operator(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(dedent(ECHO))
    compiled = str(tmp_path / "a.pyc")
    py_compile.compile(str(tmp_path / "a.py"), cfile=compiled)
    config = OperatorConfig(id="a", python=compiled)
    assert load_class(config).__name__ == "Operator"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("class Operator:\n    __slots__ = 'dataflow_descriptor'", "no attribute '__dict__'"),
    ],
)
def test_the_old_version_continues_after_a_failed_reload(
    node: RecordingNode, tmp_path: Path, text: str, problem: str
) -> None:
    running = host(node, tmp_path, "a")
    old = running.operators[0].object
    (tmp_path / "a.py").write_text(text)
    running.handle({"type": "RELOAD", "kind": "dora"})
    (report,) = (entry["message"] for entry in node.logs)
    assert "the old version continues" in report
    assert problem in report
    running.handle(message("a", 1))
    assert node.sent == [("a/out", 1)]
    assert sys.modules[type(old).__module__].Operator is type(old)  # as pickle looks it up


@pytest.mark.parametrize(
    ("text", "problem"),
    [(None, "does not exist"), ("x = 1", "no `class Operator`")],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str | None, problem: str) -> None:
    if text is not None:
        (tmp_path / "op.py").write_text(text)
    config = OperatorConfig(id="a", python=str(tmp_path / "op.py"))
    with pytest.raises(OperatorError, match=problem):
        construct([config])


def test_statuses_have_the_numbers_that_operators_know() -> None:
    assert [status.value for status in DoraStatus] == [0, 1, 2]
