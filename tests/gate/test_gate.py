"""Which command is obeyed, for any order of commands, cuts, changes and emergencies."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings, strategies as st

from dora_gate.gate import (
    AUTO,
    EMERGENCY,
    NONE,
    Action,
    Gate,
    GateRefused,
    GateSettings,
    Rest,
    SourceCommand,
)

SECOND = 1_000_000_000
HOLD_AFTER = SECOND // 5
TICK = SECOND // 50
ROBOT = GateSettings(sources=("human", "policy"), hold_after=HOLD_AFTER)


def values(action: Action | None) -> tuple[float, ...] | None:
    return None if action is None else action.values


# --- choice -------------------------------------------------------------------------------------


def test_the_first_living_source_is_obeyed() -> None:
    gate = Gate(ROBOT)
    assert gate.cycle(0) is None
    gate.add("policy", [1.0], captured=0, now=0)
    assert gate.cycle(0) == Action((1.0,), "policy", command=True)
    gate.add("human", [2.0], captured=TICK, now=TICK)
    assert gate.cycle(TICK) == Action((2.0,), "human", command=True)
    later = TICK + HOLD_AFTER + 1
    gate.add("policy", [3.0], captured=later, now=later)
    assert gate.cycle(later) == Action((3.0,), "policy", command=True)


def test_control_names_a_source_whatever_the_others_send() -> None:
    gate = Gate(ROBOT)
    gate.add("human", [2.0], captured=0, now=0)
    gate.select("policy")
    assert gate.cycle(0) is None
    gate.add("policy", [1.0], captured=0, now=0)
    assert gate.cycle(0) == Action((1.0,), "policy", command=True)
    gate.select(NONE)
    assert gate.cycle(0) == Action((1.0,), "hold", command=False)
    gate.select(AUTO)
    assert gate.cycle(0) == Action((2.0,), "human", command=True)
    with pytest.raises(
        GateRefused, match="control is 'robot'; expected one of: human, policy, auto"
    ):
        gate.select("robot")
    assert gate.control == AUTO


@pytest.mark.parametrize(
    ("rest", "after"),
    [
        (Rest.HOLD, Action((1.0, 2.0), "hold", command=False)),
        (Rest.ZERO, Action((0.0, 0.0), "zero", command=False)),
        (Rest.STOP, None),
    ],
)
def test_a_source_that_is_silent(rest: Rest, after: Action | None) -> None:
    gate = Gate(replace(ROBOT, rest=rest))
    gate.add("human", [1.0, 2.0], captured=0, now=0)
    assert values(gate.cycle(HOLD_AFTER)) == (1.0, 2.0)
    assert gate.cycle(HOLD_AFTER + 1) == after


def test_an_old_command_after_a_cut_is_not_obeyed() -> None:
    gate = Gate(ROBOT)
    gate.add("human", [1.0], captured=0, now=0)
    gate.cycle(0)
    back = 10 * SECOND
    with pytest.raises(
        GateRefused, match=r"a command is 9\.5 s old when it arrives; the limit is 0"
    ):
        gate.add("human", [2.0], captured=SECOND // 2, now=back)
    assert gate.cycle(back) == Action((1.0,), "hold", command=False)
    gate.add("human", [3.0], captured=back, now=back)
    with pytest.raises(GateRefused, match="older than the one before"):
        gate.add("human", [4.0], captured=back - 1, now=back)
    assert values(gate.cycle(back)) == (3.0,)


def test_a_stamp_in_the_future_keeps_no_source_alive() -> None:
    gate = Gate(ROBOT)
    gate.add("human", [1.0], captured=1000 * SECOND, now=0)
    assert gate.cycle(HOLD_AFTER + 1) is None


def test_the_emergency_wins() -> None:
    gate = Gate(replace(ROBOT, rest=Rest.ZERO))
    gate.select("policy")
    gate.add("policy", [1.0], captured=0, now=0)
    gate.cycle(0)
    gate.add(EMERGENCY, [-1.0], captured=0, now=0)
    assert gate.cycle(0) == Action((-1.0,), EMERGENCY, command=True)
    gate.alarm()
    assert gate.cycle(0) == Action((0.0,), EMERGENCY, command=False)
    gate.end_emergency(0, 0)
    later = HOLD_AFTER + 1
    gate.add("policy", [1.0], captured=later, now=later)
    assert gate.cycle(later) == Action((1.0,), "policy", command=True)


UNUSABLE = [[], [1.0], [1.0, 2.0, 3.0], [1.0, float("nan")], [0, -1e999]]


@pytest.mark.parametrize("wrong", UNUSABLE)
@pytest.mark.parametrize("before", [False, True], ids=["alone", "after a command of it"])
def test_an_emergency_command_that_does_not_fit_is_an_alarm(
    wrong: list[float], before: bool
) -> None:
    gate = Gate(ROBOT)
    gate.add("human", [1.0, 2.0], captured=0, now=0)
    gate.cycle(0)
    if before:
        gate.add(EMERGENCY, [1.0, 2.0], captured=0, now=0)
    with pytest.raises(GateRefused):
        gate.add(EMERGENCY, wrong, captured=0, now=0)
    assert gate.cycle(0) == Action((1.0, 2.0), EMERGENCY, command=False)
    gate.add(EMERGENCY, [8.0, 8.0], captured=1, now=1)
    assert gate.cycle(1) == Action((1.0, 2.0), EMERGENCY, command=False), "until it ends"
    gate.end_emergency(1, 1)
    assert gate.cycle(1) == Action((1.0, 2.0), "human", command=True)


def test_an_old_end_of_an_emergency_does_not_end_it() -> None:
    """A link that was cut delivers later what was sent before the button was pressed."""
    gate = Gate(ROBOT)
    gate.alarm()
    now = 5 * SECOND
    gate.add("human", [1.0], captured=now, now=now)
    with pytest.raises(GateRefused, match="the end of the emergency is 4 s old"):
        gate.end_emergency(SECOND, now)
    assert gate.cycle(now) is None
    gate.end_emergency(now - HOLD_AFTER, now)
    assert gate.cycle(now) == Action((1.0,), "human", command=True)


def test_silence_after_an_emergency_command_is_an_emergency() -> None:
    gate = Gate(ROBOT)
    gate.add("human", [1.0], captured=0, now=0)
    gate.add(EMERGENCY, [9.0], captured=0, now=0)
    assert gate.cycle(0) == Action((9.0,), EMERGENCY, command=True)
    for later in (HOLD_AFTER + 1, 1000 * SECOND):
        gate.add("human", [1.0], captured=later, now=later)
        assert gate.cycle(later) == Action((9.0,), EMERGENCY, command=False)
    gate.add(EMERGENCY, [8.0], captured=later, now=later)
    assert gate.cycle(later) == Action((8.0,), EMERGENCY, command=True)
    gate.end_emergency(later, later)
    assert gate.cycle(later) == Action((1.0,), "human", command=True)


def test_an_emergency_command_that_comes_late_is_an_emergency() -> None:
    gate = Gate(ROBOT)
    gate.add("human", [1.0], captured=SECOND, now=SECOND)
    gate.cycle(SECOND)
    with pytest.raises(GateRefused, match="a command is 1 s old"):
        gate.add(EMERGENCY, [9.0], captured=0, now=SECOND)
    assert gate.cycle(SECOND) == Action((1.0,), EMERGENCY, command=False)


def test_an_emergency_does_not_decide_how_many_values_there_are() -> None:
    """A button that sends numbers must not keep out the commands, nor move the robot."""
    gate = Gate(ROBOT)
    with pytest.raises(GateRefused, match="not known yet"):
        gate.add(EMERGENCY, [1.0], captured=0, now=0)
    gate.add("human", [1.0, 2.0], captured=0, now=0)
    assert gate.cycle(0) is None
    gate.end_emergency(0, 0)
    assert gate.cycle(0) == Action((1.0, 2.0), "human", command=True)


@pytest.mark.parametrize("wrong", UNUSABLE)
def test_values_that_do_not_fit_are_refused(wrong: list[float]) -> None:
    gate = Gate(ROBOT)
    gate.add("human", [1.0, 2.0], captured=0, now=0)
    with pytest.raises(GateRefused):
        gate.add("policy", wrong, captured=1, now=1)
    with pytest.raises(GateRefused):
        gate.see(wrong)
    assert values(gate.cycle(1)) == (1.0, 2.0)


# --- limits -------------------------------------------------------------------------------------


def test_no_value_changes_faster_than_its_step() -> None:
    gate = Gate(replace(ROBOT, max_step=(0.1, 1.0), needs_state=True))
    gate.add("human", [1.0, 1.0], captured=0, now=0)
    assert gate.cycle(0) is None, "the state is not known yet"
    gate.see([0.0, 0.0])
    found = [values(gate.cycle(number * TICK)) for number in range(3)]
    assert found == [(0.1, 1.0), (0.2, 1.0), (pytest.approx(0.3), 1.0)]


def test_a_change_of_the_source_is_smooth() -> None:
    gate = Gate(replace(ROBOT, hand_over=4 * TICK))
    gate.add("policy", [0.0], captured=0, now=0)
    assert values(gate.cycle(0)) == (0.0,)
    gate.add("human", [4.0], captured=0, now=0)
    found = [values(gate.cycle(number * TICK)) for number in range(6)]
    assert found == [(0.0,), (1.0,), (2.0,), (3.0,), (4.0,), (4.0,)]


def test_after_a_pause_it_begins_where_the_robot_is() -> None:
    """Somebody has moved it meanwhile."""
    gate = Gate(replace(ROBOT, rest=Rest.STOP, max_step=(0.1,), needs_state=True))
    gate.see([0.0])
    gate.add("human", [0.0], captured=0, now=0)
    assert values(gate.cycle(0)) == (0.0,)
    pause = SECOND
    assert gate.cycle(pause) is None
    gate.see([5.0])
    gate.add("human", [0.0], captured=pause, now=pause)
    assert values(gate.cycle(pause)) == (4.9,)


# --- any order of events ------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    source: str
    command: SourceCommand
    arrives: int


@dataclass(frozen=True)
class Selected:
    control: str


@dataclass(frozen=True)
class Emergency:
    on: bool
    age: int


@dataclass(frozen=True)
class Seen:
    state: tuple[float, ...]


@dataclass(frozen=True)
class Cycle:
    pass


numbers = st.floats(-1e3, 1e3)
pairs = st.tuples(numbers, numbers)
delays = st.integers(0, 2 * HOLD_AFTER)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, object]]:
    """Events with their times. Commands arrive late, some after a cut."""
    now = 0
    found: list[tuple[int, object]] = []
    sources = st.sampled_from(("human", "policy", EMERGENCY))
    for _ in range(draw(st.integers(1, 40))):
        now += draw(st.sampled_from((0, 1, TICK, HOLD_AFTER // 2, HOLD_AFTER, 5 * SECOND)))
        event = draw(
            st.one_of(
                st.just(Cycle()),
                st.just(Cycle()),
                st.builds(
                    lambda source, pair, delay, at=now: Sent(
                        source, SourceCommand(pair, at - delay), at
                    ),
                    sources,
                    pairs,
                    delays,
                ),
                st.builds(Selected, st.sampled_from(("human", "policy", AUTO, NONE))),
                st.builds(Emergency, st.booleans(), delays),
                st.builds(Seen, pairs),
            )
        )
        found.append((now, event))
    return found


plans = st.builds(
    GateSettings,
    sources=st.just(("human", "policy")),
    hold_after=st.just(HOLD_AFTER),
    rest=st.sampled_from(Rest),
    max_step=st.sampled_from([(), (0.5,), (0.5, 100.0)]),
    hand_over=st.sampled_from([0, 3 * TICK]),
    needs_state=st.booleans(),
)


class World:
    """What was sent, for the rules that must hold whatever the gate does."""

    def __init__(self, plan: GateSettings) -> None:
        self.plan = plan
        self.gate = Gate(plan)
        self.sent: list[Sent] = []
        self.state: tuple[float, ...] | None = None
        self.last: tuple[float, ...] | None = None
        self.paused = False
        self.control = AUTO
        self.alarm = self.commanded = False
        self.sized = len(plan.max_step) > 1

    def apply(self, now: int, event: object) -> None:
        match event:
            case Sent(source, command, _):
                if source == EMERGENCY and not self.sized:
                    self.alarm = True
                else:
                    self.sized = True
                    self.commanded |= source == EMERGENCY
                    self.sent.append(event)
                with contextlib.suppress(GateRefused):
                    self.gate.add(source, command.values, command.captured, now)
            case Selected(control):
                self.control = control
                self.gate.select(control)
            case Emergency(on=True):
                self.alarm = True
                self.gate.alarm()
            case Emergency(age=age):
                if age <= HOLD_AFTER:
                    self.alarm = self.commanded = False
                    self.sent = [one for one in self.sent if one.source != EMERGENCY]
                with contextlib.suppress(GateRefused):
                    self.gate.end_emergency(now - age, now)
            case Seen(state):
                self.state, self.sized = state, True
                self.gate.see(state)
            case Cycle():
                self.check(self.gate.cycle(now), now)

    def newest(self, source: str) -> SourceCommand | None:
        known = [one.command for one in self.sent if one.source == source]
        return max(known, key=lambda one: one.captured, default=None)

    def alive(self, now: int) -> list[str]:
        """Sources with a command that is new enough, by priority."""
        order = (EMERGENCY, *self.plan.sources)
        newest = {name: self.newest(name) for name in order}
        return [
            name
            for name, one in newest.items()
            if one is not None and now - one.captured <= HOLD_AFTER
        ]

    def expected(self, now: int) -> str | None:
        if self.alarm:
            return None
        may = (self.control,) if self.control != AUTO else ("human", "policy")
        if self.commanded:
            may = (EMERGENCY,)
        return next((name for name in self.alive(now) if name in may), None)

    def check(self, action: Action | None, now: int) -> None:
        source = self.expected(now)
        if action is None:
            waits = self.plan.needs_state and self.state is None
            assert source is None or waits
            self.paused |= self.plan.rest is Rest.STOP and self.state is not None and not waits
            return
        if action.command:
            assert action.source == source
        else:
            assert source is None
            emergency = self.alarm or self.commanded
            assert action.source == (EMERGENCY if emergency else str(self.plan.rest))
        start = self.state if self.last is None or self.paused else self.last
        if start is not None and self.plan.max_step:
            steps = self.plan.max_step * (2 // len(self.plan.max_step))
            for begin, end, step in zip(start, action.values, steps, strict=True):
                assert abs(end - begin) <= step * (1 + 1e-9) + 1e-9
        if source is not None and not self.plan.hand_over and not self.plan.max_step:
            newest = self.newest(source)
            assert newest is not None
            fitting = [
                one.command.values
                for one in self.sent
                if one.source == source and one.command.captured == newest.captured
            ]
            assert action.values in fitting
        self.last, self.paused = action.values, False


@settings(max_examples=300, deadline=None)
@given(plans, histories())
def test_the_rules_hold_for_any_order_of_events(
    plan: GateSettings, history: list[tuple[int, object]]
) -> None:
    """One source in a cycle, and the right one; no value beyond the limits; no old command."""
    world = World(plan)
    for now, event in history:
        world.apply(now, event)
