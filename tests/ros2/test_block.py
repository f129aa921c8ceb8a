"""The block `ros2:` in dataflow files: mistakes, warnings, JSON Schema."""

from __future__ import annotations

import pytest
from config.parsing import errors, warnings, with_node
from config.render.test_schema import BEYOND, is_valid

MISTAKES = [
    ("ros2: {}", '4:5: node "n": ros2: expected exactly one of topic, topics, service, action'),
    ("ros2: {topic: /x}\nargs: a", "`args` is among the fields that are not allowed on ros2 nodes"),
    ("ros2: {topic: /x}", 'topic "/x" needs the output "x"; the node has no outputs'),
    (
        "ros2: {topic: /x}\noutputs: [a, b]",
        '4:19: node "n": ros2: topic "/x" needs one output, or one called "x"; the node has a, b',
    ),
    ("ros2: {topics: [{topic: /x/y}]}\noutputs: [x]", 'needs the output "x_y"; the node has x'),
    ("ros2: {topic: /x, direction: publish}", 'needs the input "x"; the node has no inputs'),
    ("ros2: {topic: x y}\noutputs: [x]", 'ros2 topic: "x y" is not valid; expected letters'),
    ("ros2: {topic: /x, message_type: a}\noutputs: [x]", '"a" is not valid; expected package/Name'),
    ("ros2: {topics: []}", "`topics` must have 1 to 64 entries, found 0"),
    ("ros2: {topic: /x, service: /y}", "topics, service, action, found `topic` and `service`"),
    ("ros2: {service: /x, role: client}", "ros2: `service` needs `service_type`"),
    ("ros2: {service: /x, service_type: a/B, role: client}", "client needs an input for requests"),
    (
        "ros2: {action: /x, action_type: a/B, role: server}",
        "an action server needs an output for goals",
    ),
    ("ros2: {topic: /x, qos: {keep_last: 0}}\noutputs: [x]", "keep_last: must be"),
    ("ros2: {topic: /x, qos: {durability: no}}\noutputs: [x]", "durability: expected one of"),
    ("ros2: {topic: /x, transport: {kind: tcp}}\noutputs: [x]", "kind: expected one of"),
    ("ros2: {topic: /x, namspace: a}\noutputs: [x]", "(did you mean `namespace`?)"),
    (
        "ros2: {service: /x, service_type: a/B, role: server, transport: {kind: dds}}",
        "a service needs the transport zenoh; dds has only topics",
    ),
]


@pytest.mark.parametrize(("fields", "expected"), MISTAKES)
def test_mistakes(fields: str, expected: str) -> None:
    found = errors(with_node(fields))
    assert any(expected in error for error in found), found
    if not any(part in expected for part in BEYOND):
        assert not is_valid("dataflow", with_node(fields))


WARNINGS = [
    (
        "ros2: {topics: [{topic: /x}]}\noutputs: [x, y]",
        'ros2: the output "y" belongs to no topic',
    ),
    (
        "ros2: {topic: /x}\noutputs: [x]\ninputs: {z: source/out}",
        'ros2: the input "z" belongs to no topic',
    ),
    (
        "ros2: {service: /x, service_type: a/B, role: client}\noutputs: [a, response]\n"
        "inputs: {z: source/out}",
        'ros2: a service client does not use the output "a"',
    ),
]


@pytest.mark.parametrize(("fields", "expected"), WARNINGS)
def test_warnings(fields: str, expected: str) -> None:
    found = warnings(with_node(fields))
    assert any(expected in warning for warning in found), found


GOOD = [
    "nodes: [{id: a, path: p, ros2: , hub: ~, min_log_level: Warn}]",
    "nodes: [{id: a, ros2: {topic: /x, message_type: a/B}, outputs: [x]}]",
    "nodes: [{id: a, ros2: {topics: [{topic: x, qos: {keep_last: 1}}]}, outputs: [x]}]",
    "nodes: [{id: a, ros2: {action: /x, action_type: a/action/B, role: client}}]",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_dataflows_are_valid(text: str) -> None:
    assert is_valid("dataflow", text)
