"""Which copies are sent, what is shown of them, and when a coordinator stands aside."""

from __future__ import annotations

import random

from dora_config.protocol.claims import Claim, Signature
from dora_config.protocol.control import SetStandbys, Standby
from dora_config.protocol.daemon import Coordinators, CopyKept
from dora_coordinator.state.succession import (
    CONFIRMATION,
    FAILED_PAUSE,
    Succession,
    SuccessionRecord,
)
from dora_daemon.agent.coordinator_access import KnownCoordinators

BOTH = ("base", "rover")
STANDBYS = SetStandbys(
    address="10.0.0.1:6013",
    standbys=tuple(
        Standby(machine=name, address=f"10.0.0.{n}:6013") for n, name in enumerate(BOTH, 2)
    ),
)


def succession(number: int = 5) -> Succession:
    found = Succession()
    assert found.set_standbys(STANDBYS)
    assert not found.set_standbys(STANDBYS)
    found.number = number
    return found


def keep(made: Succession, machine: str, now: float, *, problem: str | None = None) -> None:
    answer = CopyKept(epoch=1, number=made.number, problem=problem)
    made.answered(machine, answer, now)


def refusal(made: Succession) -> str:
    return made.refusal or ""


def test_each_change_is_sent_to_the_connected_standbys() -> None:
    made = succession()
    assert made.due({"base", "other"}, 0.0) == ["base"]
    made.sent("base", 5, 0.0)
    assert made.due(BOTH, 0.1) == ["rover"]
    keep(made, "base", 1.0)
    assert made.due(["base"], 1.0) == []
    made.number = 6
    assert made.due(["base"], 1.0) == ["base"]
    first, second = made.reports(3.0)
    assert (first.machine, first.number, first.age, first.current) == ("base", 5, 2.0, False)
    assert (second.number, second.age, second.address) == (None, None, "10.0.0.3:6013")


def test_one_copy_at_a_time_and_again_after_a_silence_or_a_loss() -> None:
    made = succession()
    made.sent("base", 5, 0.0)
    made.number = 6
    assert made.due(["base"], CONFIRMATION - 1) == []
    assert made.due(["base"], CONFIRMATION) == ["base"]
    made.disconnected("base")
    assert made.due(["base"], 1.0) == ["base"]
    made.answered("base", CopyKept(epoch=1, number=5), 2.0)  # of the lost connection
    assert made.reports(2.0)[0].number is None


def test_a_machine_with_a_full_disk_is_tried_again_later() -> None:
    made = succession()
    made.sent("base", 5, 0.0)
    keep(made, "base", 1.0, problem="disk full")
    assert made.due(["base"], FAILED_PAUSE - 1) == []
    assert made.reports(1.0)[0].problem == "disk full"
    assert made.due(["base"], FAILED_PAUSE) == ["base"]
    made.sent("base", 5, FAILED_PAUSE)
    keep(made, "base", FAILED_PAUSE)
    assert made.reports(FAILED_PAUSE)[0].problem is None
    made.send_again()  # another token
    assert made.due(["base"], FAILED_PAUSE) == ["base"]


def test_an_address_is_claimed_with_a_new_signature() -> None:
    def sign(claim: Claim) -> Claim:
        return claim.model_copy(update={"time": claim.time + 1})

    made = Succession(sign=sign)
    assert made.set_standbys(STANDBYS)
    assert made.coordinators.claim == Claim(address=STANDBYS.address, time=1)
    assert made.coordinators.standbys == ("10.0.0.2:6013", "10.0.0.3:6013")
    assert made.set_standbys(STANDBYS.model_copy(update={"standbys": ()}))
    assert made.coordinators.claim.time == 1, "the list of standbys is not signed"


def test_only_a_higher_epoch_replaces_a_coordinator() -> None:
    made = Succession(SuccessionRecord(claim=Claim(epoch=2), standbys=STANDBYS.standbys))
    for epoch in (0, 1, 2):
        assert not made.replace(Claim(epoch=epoch, address="10.0.0.9:6013"))
    assert refusal(made) == ""
    assert made.replace(Claim(epoch=3, address="10.0.0.2:6013"))
    assert made.due(BOTH, 0.0) == []
    assert "replaced by the one at 10.0.0.2:6013 (epoch 3)" in refusal(made)
    assert not made.replace(Claim(epoch=3, address="10.0.0.3:6013"))
    assert made.replace(Claim(epoch=4, address="10.0.0.3:6013"))
    again = Succession(SuccessionRecord.model_validate_json(made.record.model_dump_json()))
    assert "10.0.0.3:6013" in refusal(again)


def test_one_of_two_that_took_over_on_both_sides_of_a_cut_leads() -> None:
    """Both have epoch 2; once the cut has healed, each machine meets them in any order."""
    for seed in range(50):
        choice = random.Random(seed)
        records = [
            SuccessionRecord(claim=Claim(epoch=2, machine=machine, address=address))
            for machine, address in (("base", "10.0.0.2:6013"), ("rover", "10.0.0.3:6013"))
        ]
        coordinators = [Succession(SuccessionRecord()), *map(Succession, records)]
        daemons = [KnownCoordinators(authority="a") for _ in range(4)]
        for one in coordinators[1:]:  # before the cut, each had daemons of its own
            number = choice.randrange(4)
            daemons[number] = daemons[number].following(one.coordinators, "a") or daemons[number]
        meetings = [(one, number) for one in coordinators for number in range(4)] * 3
        choice.shuffle(meetings)
        for one, number in meetings:
            one.replace(daemons[number].claim)
            leading = Coordinators(claim=one.leading)
            daemons[number] = daemons[number].following(leading, "a") or daemons[number]
        assert {one.claim.address for one in daemons} == {"10.0.0.3:6013"}, seed
        assert [one.refusal is None for one in coordinators] == [False, False, True], seed
        assert "10.0.0.3:6013" in refusal(coordinators[1])


class History:
    """Coordinators and daemons that meet in any order; one daemon is hostile. A signature is the
    text of its claim.
    """

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self.coordinators = [Succession(sign=self.sign)]
        self.coordinators[0].record = SuccessionRecord(claim=self.sign(Claim()))
        self.daemons = [KnownCoordinators(authority="a") for _ in range(4)]
        self.made = [self.coordinators[0].record.claim]

    def sign(self, claim: Claim) -> Claim:
        return claim.model_copy(update={"proof": Signature(signature=claim.text.decode())})

    def is_signed(self, claim: Claim) -> bool:
        return claim.proof.signature == claim.text.decode()

    def promote(self) -> None:
        """Start a coordinator above what some of the daemons have seen; both sides of a cut do."""
        seen = self.choice.sample(self.daemons, self.choice.randrange(1, 4))
        epoch = max(1, *(one.claim.epoch for one in seen)) + 1
        machine = self.choice.choice(["base", "rover", "station"])
        if any(one.rank == (epoch, machine) for one in self.made):
            return  # that coordinator is the one which continues
        claim = self.sign(Claim(epoch=epoch, machine=machine))
        self.made.append(claim)
        self.coordinators.append(Succession(SuccessionRecord(claim=claim), sign=self.sign))

    def restart(self) -> None:
        """Begin with what is stored."""
        number = self.choice.randrange(len(self.coordinators))
        record = self.coordinators[number].record.model_dump_json()
        again = Succession(SuccessionRecord.model_validate_json(record), sign=self.sign)
        self.coordinators[number] = again

    def forge(self) -> Claim:
        """Return what the hostile daemon shows."""
        real = self.choice.choice(self.made)
        changes = {"epoch": 1 << 62, "machine": "zz", "address": "evil"}
        field = self.choice.choice([*changes])
        return real.model_copy(update={"epoch": real.epoch + 1, field: changes[field]})

    def show(self, claim: Claim, to: Succession) -> None:
        """As `Service.consider`."""
        if self.is_signed(claim):
            to.replace(claim)

    def meet(self, one: Succession, number: int) -> None:
        known = self.daemons[number]
        self.show(known.claim, one)
        found = Coordinators(claim=one.leading)
        if self.is_signed(found.claim):
            self.daemons[number] = known.following(found, "a") or known

    def step(self) -> None:
        one = self.choice.choice(self.coordinators)
        match self.choice.randrange(12):
            case 0:
                self.promote()
            case 1:
                self.restart()
            case 2:
                self.show(self.forge(), one)
            case _:
                self.meet(one, self.choice.randrange(len(self.daemons)))

    def check(self) -> None:
        seen = [one.claim for one in self.daemons] + [one.leading for one in self.coordinators]
        assert all(claim in self.made or claim.epoch == 0 for claim in seen)


def test_any_history_ends_with_the_highest_coordinator_that_was_promoted() -> None:
    for seed in range(300):
        history = History(seed)
        for _ in range(40):
            history.step()
            history.check()
        for one in history.coordinators * 2:
            for number in range(len(history.daemons)):
                history.meet(one, number)
        highest = max(history.made, key=lambda claim: claim.rank)
        assert {one.claim for one in history.daemons} == {highest}, seed
        leading = [one for one in history.coordinators if one.refusal is None]
        assert [one.record.claim for one in leading] == [highest], seed
