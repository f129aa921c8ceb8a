"""What holds in every roll-out, whatever fails, holds or is off: machines in simulated time."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings, strategies as st

from dora_config.cluster.fleet import Rollout
from dora_config.cluster.rollout import Decision, RollOut, Seen, batches

NAMES = [f"r{number}" for number in range(1, 8)]
TICK = 4.0
LIMIT = 5_000.0
TROUBLE_ENDS = 200.0
"""When pauses, holds and restarts have ended, and machines have returned that do."""


@dataclass
class Fake:
    """A machine that takes time to change, and then may have any trouble."""

    name: str
    takes: float
    held_until: float
    restarts_until: float
    step_fails: bool
    check_fails: bool
    off_until: float
    changed: bool = False
    healthy: bool = False
    failed: str | None = None
    step_ends: float | None = None
    check_passed: bool = False
    refused: int = 0

    def seen(self, now: float) -> Seen:
        restarts = now < self.restarts_until
        return Seen(
            name=self.name,
            machine=self.name,
            differs=not self.changed,
            connected=now >= self.off_until,
            processes=None if not self.changed else now if restarts else "its processes",
            healthy=self.healthy,
            failed=self.failed,
        )


@dataclass
class Course:
    """A roll-out in simulated time, and what is checked at each decision."""

    rollout: Rollout
    fakes: list[Fake]
    pauses: list[tuple[float, float]]
    engine: RollOut = field(default_factory=RollOut)
    now: float = 0.0

    def run(self) -> Decision:
        decision = Decision()
        while self.now < LIMIT:
            self.now += TICK
            for one in self.fakes:
                self._end_step(one)
            paused = any(begin <= self.now < end for begin, end in self.pauses)
            seen = [one.seen(self.now) for one in self.fakes]
            decision = self.engine.decide(self.rollout, seen, self.now, paused=paused)
            self._require_order(decision, seen, paused=paused)
            by_name = {one.name: one for one in self.fakes}
            for name in decision.healthy:
                by_name[name].healthy = True
                assert self.rollout.check is None or by_name[name].check_passed
            for name, reason in decision.failed.items():
                by_name[name].failed = reason
            has_ended = decision.is_done or decision.gives_up is not None
            if has_ended or (decision.is_stuck and self.now > TROUBLE_ENDS):
                break
            for name in decision.act:
                self._act(by_name[name])
            for name in decision.check:
                self._check(by_name[name])
        return decision

    def _act(self, one: Fake) -> None:
        held = self.now < one.held_until
        self.engine.track(one.name).held = "held" if held else None
        if not held:
            self.engine.track(one.name).busy = True
            one.step_ends = self.now + one.takes

    def _end_step(self, one: Fake) -> None:
        if one.step_ends is None or self.now < one.step_ends:
            return
        one.step_ends = None
        if one.step_fails and one.failed is None:
            one.failed = "its step has failed"
        else:
            one.changed = True
        self.engine.step_ended(one.name, self.now)

    def _check(self, one: Fake) -> None:
        if one.check_fails:
            one.failed = "its check has failed"
        one.check_passed = not one.check_fails
        self.engine.step_ended(one.name, self.now, check_passed=one.check_passed)

    def _require_order(self, decision: Decision, seen: list[Seen], *, paused: bool) -> None:
        """Nothing changes beyond the open waves, after too many failures, or in a pause."""
        if paused:
            assert not decision.act
            assert not decision.check
            return
        assert set(decision.act) <= set(decision.opened)
        failed = {one.name for one in seen if one.failed is not None} | decision.failed.keys()
        assert (len(failed) >= self.rollout.max_failed) == (decision.gives_up is not None)
        passed = {one.name for one in seen if one.healthy} | set(decision.healthy)
        for number, batch in enumerate(batches(self.rollout, seen)):
            if any(one.name in decision.opened for one in batch):
                earlier = [one for past in batches(self.rollout, seen)[:number] for one in past]
                waited_for = [one.name for one in earlier if one.connected]
                assert set(waited_for) <= passed | failed
                is_after_first = {one.name for one in earlier} & set(self.rollout.first)
                if is_after_first and number == 1 and decision.act:
                    assert any(one.name in passed for one in earlier) or failed


def seconds(most: int) -> st.SearchStrategy[float]:
    return st.integers(0, most).map(float)


TROUBLE = st.booleans() | st.just(False)


def fake(name: str) -> st.SearchStrategy[Fake]:
    longer = st.just(0.0) | seconds(90)
    fields = (seconds(20), longer, longer, TROUBLE, TROUBLE, longer | st.just(LIMIT))
    return st.builds(Fake, st.just(name), *fields)


ROLLOUTS = st.builds(
    Rollout,
    first=st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple),
    then=st.integers(1, 4) | st.sampled_from(["25%", "50%", "100%"]),
    healthy=seconds(30),
    check=st.none() | st.just("true"),
    deadline=st.integers(31, 60).map(float),
    max_failed=st.integers(1, 3),
)
PAUSES = st.lists(st.tuples(seconds(90), seconds(90)), max_size=2)


@settings(deadline=None, max_examples=60)
@given(
    rollout=ROLLOUTS,
    fakes=st.integers(1, 7).flatmap(lambda count: st.tuples(*map(fake, NAMES[:count]))),
    pauses=PAUSES,
)
def test_a_roll_out_keeps_its_order_and_ends(
    rollout: Rollout, fakes: tuple[Fake, ...], pauses: list[tuple[float, float]]
) -> None:
    spans = [(begin, begin + length) for begin, length in pauses]
    decision = Course(rollout, list(fakes), spans).run()
    first = {one.name for one in fakes if one.name in rollout.first}
    first_off = all(
        one.off_until >= LIMIT or one.failed is not None for one in fakes if one.name in first
    )
    failed = [one for one in fakes if one.failed is not None]
    if decision.is_stuck:
        assert first
        assert first_off
        return
    assert decision.is_done or len(failed) >= rollout.max_failed
    if decision.is_done:
        for one in fakes:
            assert one.healthy or one.failed is not None or one.off_until > 0
