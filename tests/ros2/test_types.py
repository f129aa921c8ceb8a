"""Types by name."""

from __future__ import annotations

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
    assert service.event.description.main.fields[0].name == "info"


def test_action() -> None:
    action = Types().action("example_interfaces/Fibonacci")
    assert action.send_goal.dds_name == "example_interfaces::action::dds_::Fibonacci_SendGoal_"
    assert [field.name for field in action.feedback_message.arrow_type] == ["goal_id", "feedback"]
    assert action.cancel_goal.name == "action_msgs/srv/CancelGoal"
    goal = {"goal_id": {"uuid": list(range(16))}, "goal": {"order": 5}}
    request = action.send_goal.request
    assert request.decode(request.encode(goal)).to_pylist() == [goal]


def test_types_of_a_publisher() -> None:
    types = Types()
    described = types.description("std_srvs/srv/SetBool")
    types.add(described)
    assert types.service("std_srvs/SetBool").description == described


def test_unsupported_type() -> None:
    with pytest.raises(DefinitionError, match="found no definition"):
        Types().message("none/msg/None")
