"""The node: roles of inputs, options, parameters, metadata."""

from __future__ import annotations

import re
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pyarrow as pa
import pytest

from dora_config.dataflow.loader import load_dataflow
from dora_config.errors import ConfigError
from dora_gate.node import run
from dora_node_api.testing import MockNode

TICK = {"type": "INPUT", "id": "tick", "value": pa.nulls(0), "metadata": {}}
INPUTS = ("tick", "human", "policy", "control", "emergency", "state")


def command(name: str, *values: float | None, kind: Any = None, **metadata: Any) -> dict[str, Any]:
    value = pa.array(values, kind or pa.float32())
    return {"type": "INPUT", "id": name, "value": value, "metadata": metadata}


def text(name: str, value: Any) -> dict[str, Any]:
    return {"type": "INPUT", "id": name, "value": pa.array([value]), "metadata": {}}


class OneByOne(MockNode):
    """Hands out one event at a time, and keeps what is reported."""

    def __init__(self, events: list[dict[str, Any]], **given: Any) -> None:
        super().__init__(events, **given)
        self.waiting: list[str | None] = []

    def try_recv(self) -> None:
        return None

    def report_waiting(self, text: str | None) -> None:
        self.waiting.append(text)


def gate(
    events: list[dict[str, Any]],
    *arguments: str,
    inputs: tuple[str, ...] = INPUTS[:-1],
    is_restart: bool = False,
) -> OneByOne:
    """A node that has handled these events, each one alone."""

    config = {"inputs": {name: f"{name}/out" for name in inputs}, "outputs": ["action"]}
    node = OneByOne(events, node_config=config, is_restart=is_restart)
    run(node, list(arguments))
    return node


def sent(node: MockNode) -> list[tuple[list[float], str]]:
    actions = zip(
        node.outputs.get("action", []), node.output_metadata.get("action", []), strict=True
    )
    return [(value.to_pylist(), metadata["source"]) for value, metadata in actions]


def test_each_tick_has_the_action_of_one_source() -> None:
    node = gate([command("policy", 1), TICK, command("human", 2), TICK, TICK])
    assert sent(node) == [([1.0], "policy"), ([2.0], "human"), ([2.0], "human")]
    assert [entry["message"] for entry in node.logs] == ["policy is obeyed", "human is obeyed"]


def test_what_is_sent_is_what_the_source_would_have_sent() -> None:
    metadata = {"names": ["pan"], "stamp": 5, "timestamp": "then"}
    node = gate([command("policy", 1, **metadata), TICK])
    assert node.outputs["action"][0].type == pa.float32()
    assert node.output_metadata["action"] == [{"names": ["pan"], "stamp": 5, "source": "policy"}]


def test_whole_numbers_become_floats() -> None:
    node = gate([command("policy", 1, kind=pa.int32()), TICK])
    assert node.outputs["action"][0].type == pa.float64()


def test_commands_that_wait_come_before_the_tick() -> None:
    config = {"inputs": dict.fromkeys(INPUTS[:-1], "a/b"), "outputs": ["action"]}
    node = MockNode([TICK, command("human", 1), TICK, command("human", 2)], node_config=config)
    run(node, [])
    assert sent(node) == [([2.0], "human")]


@pytest.mark.parametrize(
    "select",
    [
        text("control", "policy"),
        {"type": "PARAM_UPDATE", "id": "control", "value": "policy"},
    ],
    ids=["message", "parameter"],
)
def test_control_is_a_parameter_and_an_input(select: dict[str, Any]) -> None:
    both = [command("human", 1), command("policy", 2)]
    wrong = text("control", "robot")
    deleted = {"type": "PARAM_DELETED", "id": "control"}
    node = gate([*both, TICK, select, TICK, wrong, TICK, deleted, TICK])
    assert [source for _, source in sent(node)] == ["human", "policy", "policy", "human"]
    assert node.waiting == [
        "control is 'robot'; expected one of: human, policy, auto, none; it stays policy",
        None,
    ]


def test_parameters_that_cannot_be_used_are_shown_until_they_are_mended() -> None:
    def update(name: str, value: str) -> dict[str, Any]:
        return {"type": "PARAM_UPDATE", "id": name, "value": value}

    deleted = {"type": "PARAM_DELETED", "id": "contrl"}
    wrong = [update("control", "polcy"), update("contrl", "policy")]
    node = gate([command("policy", 1), TICK, *wrong, TICK, update("control", "human"), deleted])
    assert [source for _, source in sent(node)] == ["policy", "policy"]
    control = "control is 'polcy'; expected one of: human, policy, auto, none; it stays auto"
    unknown = "parameter `contrl` does not exist, only `control`; delete it"
    assert node.waiting == [control, f"{control}; {unknown}", unknown, None]


def test_priority_and_start_value() -> None:
    both = [command("human", 1), command("policy", 2), TICK]
    assert sent(gate(both, "--priority", "policy,human")) == [([2.0], "policy")]
    assert sent(gate(both, "--control", "none")) == []


@pytest.mark.parametrize(
    "alarm",
    [
        text("emergency", True),
        text("emergency", None),
        text("emergency", "help"),
        {"type": "INPUT", "id": "emergency", "value": pa.array([], pa.bool_()), "metadata": {}},
        {"type": "INPUT_CLOSED", "id": "emergency"},
        {"type": "ERROR", "error": "input `emergency`: the message is damaged"},
        command("emergency", 1, 0),
        command("emergency", 1, 0, kind=pa.uint8()),
        command("emergency", float("nan")),
        command("emergency", None),
        command("emergency", kind=pa.null()),
        {"type": "INPUT", "id": "emergency", "value": pa.array([False, True]), "metadata": {}},
        {"type": "INPUT", "id": "emergency", "value": pa.array([False, None]), "metadata": {}},
    ],
)
def test_anything_but_false_is_an_emergency(alarm: dict[str, Any]) -> None:
    over = text("emergency", False)
    again = command("human", 1)
    node = gate([again, TICK, alarm, TICK, again, TICK, over, TICK], "--then", "zero")
    assert sent(node) == [
        ([1.0], "human"),
        ([0.0], "emergency"),
        ([0.0], "emergency"),
        ([1.0], "human"),
    ]


def test_an_emergency_of_numbers_lasts_until_false_and_is_shown() -> None:
    pair = command("human", 1, 2)
    park, short = command("emergency", 9, 9), command("emergency", 1)
    over = text("emergency", False)
    node = gate([pair, TICK, park, pair, TICK, TICK, short, pair, TICK, over, TICK, short, TICK])
    assert [source for _, source in sent(node)] == [
        "human",
        *["emergency"] * 3,
        "human",
        "emergency",
    ]
    held = "holds the last action: there is an emergency"
    assert node.waiting == ["emergency is obeyed", held, None, held]
    assert [entry["message"] for entry in node.logs if entry["level"] == "warn"] == [
        "input `emergency`: there are 1 values; expected 2; this is an emergency (reported once)"
    ]


def test_an_old_false_does_not_end_an_emergency() -> None:
    old = text("emergency", False)
    old["captured_ns"] = time.monotonic_ns() - 4_000_000_000
    events = [old, command("human", 1), TICK, text("emergency", True), old, TICK]
    node = gate(events)
    assert [source for _, source in sent(node)] == ["human", "emergency"]
    (warning,) = [entry["message"] for entry in node.logs if entry["level"] == "warn"]
    assert re.fullmatch(
        r"input `emergency`: the end of the emergency is [4-9]\S* s old when it arrives; the limit"
        r" is 0\.2 s; this is an emergency \(reported once\)",
        warning,
    )


def test_a_restarted_gate_is_in_an_emergency_until_false() -> None:
    events = [command("human", 1), TICK, text("emergency", False), TICK]
    assert sent(gate(events, is_restart=True)) == [([1.0], "human")]
    without = tuple(name for name in INPUTS[:-1] if name != "emergency")
    assert len(sent(gate(events[:2], inputs=without, is_restart=True))) == 1


def test_a_message_that_does_not_fit_is_reported_once() -> None:
    wrong = [text("policy", "fast"), command("policy", 1, 2), command("policy", 3, 4)]
    node = gate([command("human", 1), TICK, *wrong, TICK])
    assert sent(node)[-1] == ([1.0], "human")
    warnings = [entry["message"] for entry in node.logs if entry["level"] == "warn"]
    assert warnings == [
        "input `policy`: a message is string; expected an array of numbers without null;"
        " ignored (reported once)",
        "input `policy`: there are 2 values; expected 1; ignored (reported once)",
    ]


@pytest.mark.parametrize(
    ("inputs", "arguments", "problem"),
    [
        (("human",), [], "the input `tick` is missing"),
        (("tick", "state"), [], "no input has commands"),
        (("tick", "auto"), [], "no source can have the name `auto`"),
        (("tick", "human"), ["--priority", "human,policy"], "--priority is human,policy; expected"),
        (("tick", "human"), ["--control", "humn"], "--control is humn; expected one of: human,"),
        (("tick", "human"), ["--max-step", "0"], "'0': each step must be a number above zero"),
        (("tick", "human"), ["--max-step", "1,x"], "'1,x': each step must be a number above zero"),
        (("tick", "human"), ["--hold-after", "-1"], "'-1' is not a number of seconds"),
        (("tick", "human"), ["--hold-after", "x"], "'x' is not a number of seconds"),
        (("tick", "human"), ["--help"], "unrecognized arguments: --help"),
        (("tick", "human"), ["--then", "wait"], "argument --then: invalid choice: 'wait'"),
    ],
)
def test_arguments_that_cannot_be_used(
    inputs: tuple[str, ...], arguments: list[str], problem: str
) -> None:
    with pytest.raises(SystemExit, match=f"^dora-gate: .*{re.escape(problem)}"):
        gate([], *arguments, inputs=inputs)


def test_arguments_are_checked_with_the_dataflow_file(tmp_path: Path) -> None:
    path = tmp_path / "dataflow.yml"
    path.write_text(
        dedent("""\
            nodes:
              - id: gate
                path: dora-gate
                args: --control polcy
                inputs: {tick: dora/timer/millis/20, policy: policy/action}
                outputs: [action]
              - {id: policy, path: policy.py, outputs: [action]}
        """)
    )
    with pytest.raises(ConfigError) as error:
        load_dataflow(path)
    known = "expected one of: policy, auto, none"
    assert str(error.value) == f'{path}:4:11: node "gate": --control is polcy; {known}'
    path.write_text(path.read_text().replace("polcy", "policy").replace("[action]\n  ", "[]\n  "))
    with pytest.raises(ConfigError, match="expected one output, the action; found none"):
        load_dataflow(path)


def test_why_no_source_is_obeyed_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_gate.node.PATIENCE_NS", 0)
    none, auto = text("control", "none"), text("control", "auto")
    alarm = text("emergency", True)
    node = gate([TICK, command("human", 1), TICK, TICK, none, TICK, alarm, TICK, auto, TICK])
    assert node.waiting == [
        "sends nothing: no new command of any source",
        None,
        "holds the last action: control is none",
        "holds the last action: there is an emergency",
    ]
    node = gate([TICK, command("human", 1), TICK], inputs=INPUTS)
    assert node.waiting == ["sends nothing: the state of the robot is not known"]


def test_a_short_absence_is_not_shown() -> None:
    none, auto = text("control", "none"), text("control", "auto")
    node = gate([TICK, command("human", 1), TICK, none, TICK, auto, TICK])
    assert node.waiting == []
    assert [entry["message"] for entry in node.logs] == ["human is obeyed"]
