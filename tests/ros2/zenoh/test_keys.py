"""Names, keys and quality of service of rmw_zenoh."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from dora_ros2.errors import InvalidName
from dora_ros2.zenoh.tokens import (
    Qos,
    absolute,
    check_namespace,
    check_node_name,
    data_key,
    parse_domain,
    parse_qos,
    ros_type,
)

DURATIONS = st.none() | st.integers(0, 10**18)
QOS = st.builds(
    Qos,
    reliable=st.booleans(),
    transient_local=st.booleans(),
    keep_all=st.booleans(),
    depth=st.integers(1, 10**6),
    deadline=DURATIONS,
    lifespan=DURATIONS,
    manual_liveliness=st.booleans(),
    lease=DURATIONS,
)


def test_data_keys() -> None:
    string = "std_msgs::msg::dds_::String_"
    assert ros_type(string) == "std_msgs/msg/String"
    assert ros_type("a::action::dds_::Go_FeedbackMessage_") == "a/action/Go_FeedbackMessage"
    for other in ("other", "std_msgs::msg::String", "a::b::dds_::C_"):
        assert ros_type(other) == other
    key = data_key(2, "/robot1/chatter", string, "RIHS01_df")
    assert key == "2/robot1/chatter/std_msgs::msg::dds_::String_/RIHS01_df"


@pytest.mark.parametrize(
    ("name", "namespace", "expected"),
    [
        ("chatter", "/", "/chatter"),
        ("chatter", "/robot1", "/robot1/chatter"),
        ("/chatter", "/robot1", "/chatter"),
        ("~/pose", "/robot1", "/robot1/camera/pose"),
        ("~/pose", "/", "/camera/pose"),
        ("a/_action/send_goal", "/", "/a/_action/send_goal"),
    ],
)
def test_names_become_absolute(name: str, namespace: str, expected: str) -> None:
    assert absolute(name, namespace, "camera") == expected


@pytest.mark.parametrize("name", ["", "/", "a//b", "/a/", "1a", "a/*", "a$", "a?b", "#", "a%b"])
def test_invalid_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="not a valid ROS name"):
        absolute(name)


def test_other_invalid_names() -> None:
    with pytest.raises(InvalidName, match='"a-b" is not a valid name of a ROS node'):
        check_node_name("a-b")
    for text in ("-1", "233", "one"):
        with pytest.raises(InvalidName, match="not a valid ROS domain"):
            parse_domain(text)
    assert (parse_domain(""), parse_domain("7")) == (0, 7)
    assert check_namespace("") == "/"
    assert check_namespace("robot1") == "/robot1"


@pytest.mark.parametrize(
    ("token", "qos"),
    [
        ("::,:,:,:,,", Qos(depth=42)),
        ("::,10:,:,:,,", Qos()),
        ("2::,1:,:,:,,", Qos(reliable=False, depth=1)),
        (":1:,1:,:,:,,", Qos(transient_local=True, depth=1)),
        (":1:,1000:,:10,0:,,", Qos(transient_local=True, depth=1000, lifespan=10**10)),
        ("::2,:,:,:3,1,5", Qos(keep_all=True, depth=42, manual_liveliness=True, lease=10**9 + 5)),
    ],
)
def test_qos_of_real_tokens(token: str, qos: Qos) -> None:
    assert parse_qos(token) == qos
    assert qos.token() == token


@given(QOS)
def test_qos_survives_its_token(qos: Qos) -> None:
    assert parse_qos(qos.token()) == qos


def test_qos_of_other_implementations() -> None:
    assert parse_qos("1:2:1,42:,:,:1,,") == Qos(depth=42)
    infinite = "9223372036,854775807"
    assert parse_qos(f"1:2:1,0:{infinite}:{infinite}:1,{infinite}:later") == Qos(depth=42)
    assert str(Qos(reliable=False, lease=10**9)) == "best effort, volatile, keep last 10, lease 1 s"
    for wrong in ("", "::", "x::,10:,:,:,,"):
        with pytest.raises(ValueError):
            parse_qos(wrong)
