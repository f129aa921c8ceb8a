"""Types by name."""

from __future__ import annotations

import re

import pytest

from dora_ros2.errors import DefinitionError
from dora_ros2.types import Types


def test_message() -> None:
    types = Types()
    message = types.message("std_msgs/String")
    assert message.name == "std_msgs/msg/String"
    assert message.dds_name == "std_msgs::msg::dds_::String_"
    assert message is types.message("std_msgs/msg/String")


def test_service() -> None:
    service = Types().service("example_interfaces/srv/AddTwoInts")
    assert service.dds_name == "example_interfaces::srv::dds_::AddTwoInts_"
    assert service.hash.startswith("RIHS01_e118de6b")
    payload = service.request.encode({"a": 1, "b": -2})
    assert service.request.decode(payload).to_pylist() == [{"a": 1, "b": -2}]
    assert service.response.name == "example_interfaces/srv/AddTwoInts_Response"
    assert service.part("Event").description.main.fields[0].name == "info"


def test_action() -> None:
    action = Types().action("example_interfaces/Fibonacci")
    assert action.send_goal.dds_name == "example_interfaces::action::dds_::Fibonacci_SendGoal_"
    assert [field.name for field in action.feedback_message.arrow_type] == ["goal_id", "feedback"]
    assert action.cancel_goal.name == "action_msgs/srv/CancelGoal"
    goal = {"goal_id": {"uuid": list(range(16))}, "goal": {"order": 5}}
    request = action.send_goal.request
    assert request.decode(request.encode(goal)).to_pylist() == [goal]


def test_unsupported_type() -> None:
    with pytest.raises(DefinitionError, match="found no definition"):
        Types().message("none/msg/None")


SEPARATOR = "=" * 80 + "\n"


def test_schemas_of_recordings() -> None:
    types = Types()
    grip = "Finger[2] fingers\r\nstd_msgs/Header header\r\n"
    finger = "MSG: arm_msgs/Finger\nfloat32 force\n"
    kind = types.message_of_schema("arm_msgs/msg/Grip", f"{grip}{SEPARATOR}{finger}")
    assert [one.name for one in kind.description.referenced] == [
        "arm_msgs/msg/Finger",
        "builtin_interfaces/msg/Time",  # not in the text: looked up
        "std_msgs/msg/Header",
    ]
    again = Types().message_of_schema(kind.name, kind.ros2msg_text)
    assert again.hash == kind.hash
    nested = f"Nothing a\n{SEPARATOR}MSG: arm_msgs/Nothing"  # without fields, at the end
    assert types.message_of_schema("arm_msgs/msg/Outer", nested).decode(
        b"\0\1\0\0\0"
    ).to_pylist() == [{"a": {}}]

    header = types.message("std_msgs/Header")
    stamp = (
        "module builtin_interfaces { module msg {\n"
        "struct Time { int32 sec; uint32 nanosec; };\n}; };\n"
    )
    text = (
        f"{SEPARATOR}IDL: std_msgs/msg/Header\n"
        '#include "builtin_interfaces/msg/Time.idl"\n'
        "module std_msgs { module msg {\n"
        "struct Header { builtin_interfaces::msg::Time stamp; string frame_id; };\n}; };\n"
        f"{SEPARATOR}IDL: builtin_interfaces/msg/Time\n{stamp}"
    )
    assert types.message_of_schema("std_msgs/msg/Header", text).hash == header.hash
    plain = types.message_of_schema("builtin_interfaces/msg/Time", stamp)
    assert plain.hash == types.message("builtin_interfaces/Time").hash

    event = types.service("example_interfaces/AddTwoInts").part("Event")
    text = "int64 a\nint64 b\n---\nint64 sum\n"
    assert types.message_of_schema(event.name, text).hash == event.hash
    fibonacci = types.action("example_interfaces/Fibonacci")
    for kind in (
        event,
        fibonacci.feedback_message,
        fibonacci.send_goal.part("Event"),
        fibonacci.part("Result"),
    ):
        flat = kind.ros2msg_text
        full = re.sub(r"\b(example_interfaces)/(?=\w+_)", rf"\1/{kind.name.split('/')[1]}/", flat)
        assert full.count("/srv/") + full.count("/action/") == full.count("example_interfaces/")
        for text in (flat, full):
            assert Types().message_of_schema(kind.name, text).hash == kind.hash
    empty = types.service("std_srvs/Empty").request
    assert types.message_of_schema(empty.name, empty.ros2msg_text).hash == empty.hash
    with pytest.raises(DefinitionError, match=r"schema of a_msgs/msg/B:1: .* is not a type"):
        types.message_of_schema("a_msgs/msg/B", "int33[ x\n")
