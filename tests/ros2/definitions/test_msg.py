"""Parser of `.msg`, `.srv` and `.action` files."""

from __future__ import annotations

import pytest

from dora_ros2.definitions.description import PLACEHOLDER
from dora_ros2.definitions.msg import parse
from dora_ros2.errors import DefinitionError

EXAMPLE = """\
# what it is: don't mind the apostrophe
uint8 KIND_A=1          # a constant
string NAME = "a # b"
std_msgs/Header header\r
Other other             # of this package
float64[36] covariance
int32[<=3] few [1, -2]
string<=10 name "it's # here" # and this is a comment
string plain no quotes
wstring[] wide
char\tletter\t65
bool on true
geometry_msgs/msg/Point[] points
string[] words ["a, b", 'c']
"""


def test_fields() -> None:
    (found,) = parse("my_msgs/msg/Example", EXAMPLE)
    assert [
        (one.name, one.type.type_id, one.type.capacity, one.type.string_capacity, one.default)
        for one in found.fields
    ] == [
        ("header", 1, 0, 0, None),
        ("other", 1, 0, 0, None),
        ("covariance", 59, 36, 0, None),
        ("few", 102, 3, 0, (1, -2)),
        ("name", 21, 0, 10, "it's # here"),
        ("plain", 17, 0, 0, "no quotes"),
        ("wide", 162, 0, 0, None),
        ("letter", 3, 0, 0, 65),
        ("on", 15, 0, 0, True),
        ("points", 145, 0, 0, None),
        ("words", 161, 0, 0, ("a, b", "c")),
    ]
    nested = [one.type.nested for one in found.fields if one.type.nested]
    assert nested == ["std_msgs/msg/Header", "my_msgs/msg/Other", "geometry_msgs/msg/Point"]


def test_definition_without_fields() -> None:
    (found,) = parse("a/msg/Nothing", "# only\nint8 X=1\n")
    assert [one.name for one in found.fields] == [PLACEHOLDER]


def test_service_and_action() -> None:
    service = parse("a/srv/Do", "int8 x\n---\n")
    assert [one.name for one in service] == [
        "a/srv/Do", "a/srv/Do_Request", "a/srv/Do_Response", "a/srv/Do_Event"
    ]  # fmt: skip
    action = parse("a/action/Go", "---\n---\nint8 x\n")
    assert len(action) == 13
    feedback = next(one for one in action if one.name == "a/action/Go_FeedbackMessage")
    assert [one.name for one in feedback.fields] == ["goal_id", "feedback"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("int32", "the line has no field name; write: type name [default]"),
        ("int32 1x", '"1x" is not the name of a field'),
        ("int32<=3 x", '"int32" cannot be bounded'),
        ("int32[3 x", '"int32[3" is not a type'),
        ("int32[0] x", '"int32[0]" has no element'),
        ("int8 x 300", "300 is not a default value of this type"),
        ("int8[2] x [1]", "[1] has 1 values, not 2"),
        ("bool x maybe", "maybe is not a default value of this type"),
        ("time stamp", '"time" is not a type of ROS 2; write builtin_interfaces/Time'),
        ("a/srv/X x", '"a/srv/X" is not a message'),
        ("int8 y", 'the field "y" occurs twice'),
    ],
)
def test_errors_have_file_and_line(line: str, said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse("a/msg/X", f"# first\nint8 y\n{line}\n", file="X.msg")
    assert str(caught.value).startswith(f"X.msg:3: {said}")


def test_number_of_parts() -> None:
    with pytest.raises(DefinitionError, match="this kind has 2 parts, not 1"):
        parse("a/srv/X", "int8 x\n", file="X.srv")


def test_lines_of_later_parts() -> None:
    with pytest.raises(DefinitionError) as caught:
        parse("a/srv/X", "int8 x\n\n---\nint8 y\noops\n", file="X.srv")
    assert caught.value.line == 5
