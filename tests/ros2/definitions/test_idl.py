"""Parser of `.idl` files."""

from __future__ import annotations

import pytest

from dora_ros2.definitions.idl import parse
from dora_ros2.errors import DefinitionError

EXAMPLE = r"""
#include "geometry_msgs/msg/Point.idl"
/* several
   lines */
module my_msgs {
  module msg {
    const long SIZE = 4;
    typedef double double__9[9];
    module Example_Constants { const string TEXT = "a; \"b\""; };
    @verbatim (language="comment", text="what (it) is" "\n")
    struct Example {
      @default (value=3)
      @unit(value="m")
      unsigned long long big;
      double__9 matrix;
      sequence<geometry_msgs::msg::Point, 5> points;
      string<10> name;
      wchar letter[SIZE];
      boolean a, b;
      Other other;
    };
    struct Other { octet x; };
  };
};
"""


def test_structures() -> None:
    example, other = parse("my_msgs/msg/Example", EXAMPLE)
    assert [
        (one.name, one.type.type_id, one.type.capacity, one.type.string_capacity, one.type.nested)
        for one in example.fields
    ] == [
        ("big", 9, 0, 0, ""),
        ("matrix", 59, 9, 0, ""),
        ("points", 97, 5, 0, "geometry_msgs/msg/Point"),
        ("name", 21, 0, 10, ""),
        ("letter", 62, 4, 0, ""),
        ("a", 15, 0, 0, ""),
        ("b", 15, 0, 0, ""),
        ("other", 1, 0, 0, "my_msgs/msg/Other"),
    ]
    assert example.fields[0].default == 3
    assert other.name == "my_msgs/msg/Other"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("module a { module msg { struct X { long x } }; };", 'found "}" instead of ";"'),
        ("module a { module msg { struct Y { long x; }; }; };", 'does not define "a/msg/X"'),
        ("module a {\n module msg {", "X.idl:2: the definition is incomplete"),
        ("module a { module msg { struct X { what::is x; }; }; };", '"what::is" is not a type'),
        (
            "module a { module msg { struct X {\n @default (value=-1) octet x; }; }; };",
            "X.idl:2: -1 is not a default value of this type",
        ),
        ("interface X {};", 'found "interface" instead of "module"'),
    ],
)
def test_errors(text: str, said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse("a/msg/X", text, file="X.idl")
    assert str(caught.value).startswith("X.idl")
    assert said in str(caught.value)
