"""Differences between a running dataflow and the desired one, and the steps between them."""

from __future__ import annotations

import pytest

from dora_config.dataflow.loader import parse_dataflow
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet_diff import (
    Step,
    changes_by_hand,
    differences,
    next_step,
    restart_reason,
)
from dora_config.protocol.graph_checks import input_of
from dora_config.protocol.runner import (
    AddNode,
    ConnectInput,
    DisconnectInput,
    RemoveNode,
    ReplaceNode,
    SetParam,
)

CAMERA = "{id: camera, path: camera.py, inputs: {t: dora/timer/millis/9}, outputs: [image, raw]}"
PLOT = "{id: plot, path: plot.py, inputs: {a: camera/image, t: dora/timer/millis/9}}"


def spec(*nodes: str, root: str = "", **update: object) -> DataflowSpec:
    text = f"{root}\nnodes:\n" + "".join(f"  - {node}\n" for node in nodes)
    resolved = parse_dataflow(text).resolved
    return DataflowSpec(resolved=resolved).model_copy(update=update)


def after(running: DataflowSpec, step: Step) -> DataflowSpec:
    """Return what runs after a step, as the runner describes it."""
    nodes = {node.id: node for node in running.resolved.nodes}
    match step:
        case AddNode(node=node) | ReplaceNode(node=node):
            nodes[node.id] = node
            code = {**running.code, node.id: step.code} if step.code else running.code
            running = running.model_copy(update={"code": code})
        case RemoveNode(node=name):
            del nodes[name]
        case ConnectInput() | DisconnectInput():
            target = nodes[step.target]
            inputs = {name: one for name, one in target.inputs.items() if name != step.input}
            if isinstance(step, ConnectInput):
                assert step.input not in target.inputs
                inputs[step.input] = input_of(step)
            nodes[target.id] = target.model_copy(update={"inputs": inputs})
        case SetParam():
            values = {**running.params.get(step.node, {}), step.key: step.value}
            return running.model_copy(update={"params": {**running.params, step.node: values}})
    return running.with_nodes(tuple(nodes.values()))


def steps(running: DataflowSpec, desired: DataflowSpec) -> list[str]:
    """Return the steps until nothing differs."""
    found: list[str] = []
    for _ in range(20):
        step = next_step(running, desired)
        if step is None:
            assert differences(running, desired) == ()
            return found
        found.append(step.kind)
        running = after(running, step)
    raise AssertionError(f"no end: {found}")


BASE = spec(CAMERA, PLOT)
CASES = {
    "equal": (BASE, [], []),
    "order and description": (spec(PLOT, CAMERA.replace("{id", "{name: Eye, id")), [], []),
    "added": (
        spec(CAMERA, PLOT, "{id: log, path: log.py, inputs: {a: camera/raw}}"),
        ["log added"],
        ["add_node"],
    ),
    "removed": (spec(CAMERA), ["plot removed"], ["remove_node"]),
    "replaced": (
        spec(CAMERA, PLOT.replace("plot.py", "other.py, env: {A: 1}")),
        ["plot replaced (path, env A)"],
        ["replace_node"],
    ),
    "code": (
        spec(CAMERA, PLOT, code={"plot": "a" * 64}),
        ["plot replaced (code)"],
        ["replace_node"],
    ),
    "rewired": (
        spec(CAMERA, PLOT.replace("camera/image", "camera/raw")),
        ["plot rewired (a <- camera/raw)"],
        ["disconnect_input", "connect_input"],
    ),
    "queue": (
        spec(CAMERA, PLOT.replace("camera/image", "{source: camera/image, queue_size: 2}")),
        ["plot rewired (a: queue)"],
        ["disconnect_input", "connect_input"],
    ),
    "replaced and rewired": (
        spec(CAMERA, PLOT.replace("plot.py", "b.py").replace("camera/image", "camera/raw")),
        ["plot replaced (path)", "plot rewired (a <- camera/raw)"],
        ["disconnect_input", "replace_node", "connect_input"],
    ),
    "output renamed": (
        spec(CAMERA.replace("image", "picture"), PLOT.replace("camera/image", "camera/picture")),
        ["camera replaced (outputs)", "plot rewired (a <- camera/picture)"],
        ["disconnect_input", "replace_node", "connect_input"],
    ),
    "two nodes in a circle": (
        spec(
            CAMERA,
            PLOT,
            "{id: x, path: x.py, inputs: {a: y/o, t: dora/timer/millis/9}, outputs: [o]}",
            "{id: y, path: y.py, inputs: {a: x/o}, outputs: [o]}",
        ),
        ["x added", "y added"],
        ["add_node", "add_node", "connect_input"],
    ),
    "parameters": (
        spec(CAMERA, PLOT, params={"plot": {"size": 3}}),
        ["plot parameters (size = 3)"],
        ["set_param"],
    ),
}


@pytest.mark.parametrize(("desired", "shown", "kinds"), CASES.values(), ids=CASES)
def test_live_changes(desired: DataflowSpec, shown: list[str], kinds: list[str]) -> None:
    assert restart_reason(BASE, desired) is None
    found = differences(BASE, desired)
    assert [
        f"{one.node} {one.action}" + (f" ({one.detail})" if one.detail else "") for one in found
    ] == shown
    assert steps(BASE, desired) == kinds


def test_parameters_that_the_file_does_not_name_are_left_as_they_are() -> None:
    running = BASE.model_copy(update={"params": {"plot": {"by hand": 1}}})
    assert differences(running, BASE) == ()


RESTARTS = {
    "moved": (
        spec(CAMERA, PLOT.replace("plot.py", "plot.py, deploy: {machine: b}")),
        'node "plot" moves from the unnamed daemon to machine "b"',
    ),
    "nothing stays": (spec(CAMERA.replace("camera", "eye")), "it keeps none of its nodes"),
    "all inputs": (
        spec(CAMERA, "{id: plot, path: plot.py, inputs: {b: camera/raw}}"),
        'node "plot" would lose all of its inputs at once, which ends it',
    ),
    "offline": (spec(CAMERA, PLOT, offline="wait"), "offline changes"),
    "interval": (
        spec(CAMERA, PLOT, root="health_check_interval: 2"),
        "health_check_interval changes",
    ),
}


@pytest.mark.parametrize(("desired", "reason"), RESTARTS.values(), ids=RESTARTS)
def test_restarts_say_why(desired: DataflowSpec, reason: str) -> None:
    assert restart_reason(BASE, desired) == reason


def test_changes_by_hand_leave_out_parameters_that_the_file_does_not_name() -> None:
    wanted = spec(CAMERA, PLOT, params={"plot": {"a": 1, "b": 2}})
    found = changes_by_hand(wanted, spec(CAMERA, PLOT, params={"plot": {"a": 3, "c": 4}}))
    assert [str(one) for one in found] == [
        "plot: parameters (a = 3)",
        "plot: parameters (b deleted)",
    ]
    assert [str(one) for one in changes_by_hand(wanted, spec(CAMERA))] == ["plot: removed"]
    assert changes_by_hand(wanted, wanted) == ()
