"""Features are those of the messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from lerobot_robot_dora.messages import MessageUnusable, action, named
from lerobot_robot_dora.observations import Observations, Received


def numbers(*names: str, at: int = 0, **metadata: Any) -> Received:
    values = pa.array(range(len(names)), pa.float32())
    return Received(values, {"names": list(names), **metadata}, at)


def picture(width: int, height: int, at: int = 0) -> Received:
    data = pa.array(np.zeros(width * height * 3, np.uint8))
    return Received(data, {"width": width, "height": height, "encoding": "rgb8"}, at)


def observed(**messages: Received) -> Observations:
    observations = Observations(tuple(messages))
    for name, message in messages.items():
        observations.add(name, message)
    return observations


def test_names_and_sizes_become_features() -> None:
    features = observed(state=numbers("pan.pos", "grip.pos"), front=picture(64, 48)).features()
    assert features.names == ("pan.pos", "grip.pos")
    assert features.cameras == {"front": (48, 64)}
    assert features.actions == ("pan.pos", "grip.pos")


def test_a_robot_may_have_other_actions_than_states() -> None:
    features = observed(state=numbers("x.pos", "x.vel", action_names=["x.pos"])).features()
    assert (features.names, features.actions) == (("x.pos", "x.vel"), ("x.pos",))


def test_two_arms_are_two_inputs() -> None:
    features = observed(left=numbers("left_x.pos"), right=numbers("right_x.pos")).features()
    assert features.names == features.actions == ("left_x.pos", "right_x.pos")
    with pytest.raises(MessageUnusable, match=r"two inputs have `x.pos`; name the numbers of one"):
        observed(left=numbers("x.pos"), right=numbers("x.pos")).features()


def test_pictures_alone_are_no_robot() -> None:
    with pytest.raises(
        MessageUnusable, match=r"no input has the state of the robot, .* inputs: front"
    ):
        observed(front=picture(64, 48)).features()


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (
            numbers("a", "b"),
            numbers("a", "c"),
            "this message has the names a, c, but the first one had the names a, b",
        ),
        (
            picture(64, 48),
            picture(32, 48),
            "this message has a picture of 32 x 48 pixels, but the first one had a picture of 64 x"
            " 48 pixels",
        ),
    ],
)
def test_later_messages_must_be_like_the_first(
    first: Received, second: Received, problem: str
) -> None:
    observations = observed(it=first)
    with pytest.raises(MessageUnusable) as refused:
        observations.add("it", second)
    assert str(refused.value) == problem
    assert observations.newest["it"] is first


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({}, 'no list `names`; send the numbers with their names, such as {"names": '),
        ({"names": ["a", "a"]}, "`names` has a name twice: a, a"),
        ({"names": ["a"]}, "there are 2 numbers, but 1 names"),
        ({"width": 0, "height": 4}, "a picture of 0 x 4 pixels is not valid"),
    ],
)
def test_messages_without_what_they_need(metadata: dict[str, Any], problem: str) -> None:
    message = Received(pa.array([1.0, 2.0]), metadata, 0)
    with pytest.raises(MessageUnusable) as refused:
        Observations(("it",)).add("it", message)
    assert problem in str(refused.value)


def test_numbers_are_numbers() -> None:
    with pytest.raises(
        MessageUnusable, match="the message is string; expected numbers without null"
    ):
        named(pa.array(["a"]), {"names": ["a"]})


def test_old_inputs() -> None:
    observations = Observations(("state", "front"))
    observations.add("state", numbers("a", at=100))
    assert observations.missing() == ("front",)
    observations.add("front", picture(4, 4, at=50))
    assert observations.old(120, 30) == ("front",)
    assert observations.old(120, 70) == ()


NAMES = st.lists(st.text("abc.", min_size=1), min_size=1, max_size=6, unique=True)


@given(NAMES, st.randoms())
def test_an_action_has_the_order_of_the_robot(names: list[str], random: Any) -> None:
    shuffled = random.sample(names, len(names))
    values = {name: float(index) for index, name in enumerate(names)}
    found = action(pa.array([values[name] for name in shuffled]), {"names": shuffled}, names)
    assert list(found.items()) == list(values.items())


@given(NAMES, NAMES)
def test_an_action_with_other_names_is_refused(names: list[str], others: list[str]) -> None:
    value = pa.array([0.0] * len(others))
    if set(names) == set(others):
        assert action(value, {"names": others}, names).keys() == set(names)
        return
    with pytest.raises(MessageUnusable, match="the names differ from the robot's: ") as refused:
        action(value, {"names": others}, names)
    for name in set(names) ^ set(others):
        assert name in str(refused.value)
