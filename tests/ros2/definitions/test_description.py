"""Descriptions, hashes and names."""

from __future__ import annotations

import pytest

from dora_ros2.definitions.description import (
    Field,
    FieldType,
    TypeDescription,
    dds_name,
    describe,
    full_name,
    structure,
)
from dora_ros2.errors import DefinitionError
from dora_ros2.types import Types


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "std_msgs/msg/String",
            "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
        ),
        (
            "example_interfaces/srv/AddTwoInts",
            "RIHS01_e118de6bf5eeb66a2491b5bda11202e7b68f198d6f67922cf30364858239c81a",
        ),
    ],
)
def test_hashes(name: str, expected: str) -> None:
    assert Types().description(name).hash == expected


def test_description_of_a_publisher() -> None:
    """What `get_type_description` returns is the same type again."""
    for name in ("rcl_interfaces/msg/ParameterEvent", "example_interfaces/action/Fibonacci"):
        described = Types().description(name)
        sources = {one.name: one.source for one in described.structures.values()}
        received = TypeDescription.from_message(described.as_message(), sources)
        assert received == described
        assert received.hash == described.hash
        assert received.concatenated_text == described.concatenated_text


def test_incomplete_description() -> None:
    message = Types().description("std_msgs/msg/Header").as_message()
    message["referenced_type_descriptions"] = []
    with pytest.raises(DefinitionError, match='"std_msgs/msg/Header" lacks "builtin_interfaces'):
        TypeDescription.from_message(message)


@pytest.mark.parametrize(
    ("kind", "nested"), [(1, ""), (6, "std_msgs/msg/Header"), (19, ""), (200, "")]
)
def test_field_of_no_type(kind: int, nested: str) -> None:
    message = Types().description("std_msgs/msg/String").as_message()
    message["type_description"]["fields"][0]["type"] |= {
        "type_id": kind,
        "nested_type_name": nested,
    }
    with pytest.raises(DefinitionError, match=f"has a field of unknown type {kind}"):
        TypeDescription.from_message(message)


@pytest.mark.parametrize("default", ["-" * 100_000 + "1", "{[]: 1}", "9" * 5000, "1e5", "[1"])
def test_default_value_of_another_node_that_is_no_number(default: str) -> None:
    message = Types().description("builtin_interfaces/msg/Time").as_message()
    message["type_description"]["fields"][0]["default_value"] = default
    assert TypeDescription.from_message(message).main.fields[0].default is None


def test_text_of_types_that_only_idl_files_have() -> None:
    kinds = [FieldType(12), FieldType(14).several("sequence", 0), FieldType(13)]
    assert [kind.text for kind in kinds] == ["long double", "wchar[]", "char"]


def test_description_that_grows_without_end() -> None:
    """A few lines can describe billions of fields."""
    structures = {
        f"a/msg/S{level}": structure(
            f"a/msg/S{level}",
            [Field(f"f{n}", FieldType(1, nested=f"a/msg/S{level - 1}")) for n in range(20)]
            if level
            else [Field("x", FieldType(3))],
        )
        for level in range(8)
    }
    with pytest.raises(DefinitionError, match="has more than 10000 fields"):
        describe("a/msg/S7", structures.__getitem__)


def test_concatenated_text() -> None:
    text = Types().description("geometry_msgs/msg/PointStamped").concatenated_text
    parts = text.split("=" * 80 + "\n")
    assert [part.partition("\n")[0] for part in parts[1:]] == [
        "MSG: builtin_interfaces/Time", "MSG: geometry_msgs/Point", "MSG: std_msgs/Header"
    ]  # fmt: skip
    assert "Point point" in parts[0]


def test_text_of_an_implicit_type() -> None:
    text = Types().description("example_interfaces/action/Fibonacci_FeedbackMessage").main.text
    assert text == (
        "unique_identifier_msgs/UUID goal_id\nexample_interfaces/Fibonacci_Feedback feedback\n"
    )


def test_names() -> None:
    assert dds_name("std_msgs/msg/String") == "std_msgs::msg::dds_::String_"
    assert full_name("std_msgs/String", "msg") == "std_msgs/msg/String"
    for wrong in ("String", "a/b/c/d", "std_msgs/foo/X", "std-msgs/X", "../msg/X"):
        with pytest.raises(DefinitionError, match="is not the name of a ROS interface"):
            full_name(wrong, "msg")
