"""Who is admitted under a name, and who is refused."""

from __future__ import annotations

from dora_config.protocol.daemon import Register
from dora_config.protocol.envelope import ProgramVersion
from dora_coordinator.state.membership import Membership


def register(incarnation: str, *, instance: str = "disk", boot: str = "b") -> Register:
    return Register(
        party=ProgramVersion(program="daemon", release="1"),
        instance=instance,
        incarnation=incarnation,
        machine_id="robot",
        boot_id=boot,
    )


def members() -> Membership:
    return Membership(answering_within=15.0, silence_limit=30.0, fresh_within=4.5)


def test_a_restarted_daemon_replaces_its_old_connection() -> None:
    known = members()
    assert known.register(1, register("first"), "a:1", 0.0).refusal is None
    again = known.register(2, register("second"), "a:2", 1.0)
    assert (again.refusal, again.replaced) == (None, 1)
    same = known.register(3, register("second"), "a:3", 2.0)
    assert (same.refusal, same.replaced) == (None, 2)
    (member,) = known.all()
    assert member.restarts == 1


def test_of_two_daemons_with_one_copied_state_only_one_stays() -> None:
    known = members()
    known.register(1, register("original"), "a:1", 0.0)
    assert known.register(2, register("copy"), "b:1", 1.0).replaced == 1
    refusal = known.register(3, register("original"), "a:2", 2.0).refusal
    assert refusal is not None
    assert 'machine id "robot" is taken: the daemon at b:1 answers' in refusal
    assert "the one at a:2 (a copy of its installation) is refused; on one of them" in refusal
    known.disconnected(2)
    assert known.register(4, register("original"), "a:3", 3.0).refusal is None


def test_a_copied_disk_in_another_machine_is_told_apart_at_once() -> None:
    known = members()
    known.register(1, register("original", boot="one"), "a:1", 0.0)
    known.heard(1, 3.0)
    refusal = known.register(2, register("copy", boot="two"), "b:1", 4.0).refusal
    assert refusal is not None
    assert "a copy of its installation" in refusal


def test_a_machine_that_lost_power_is_admitted_before_its_old_connection_is_given_up() -> None:
    known = members()
    known.register(1, register("before", boot="one"), "a:1", 0.0)
    assert known.register(2, register("after", boot="two"), "a:2", 5.0).replaced == 1


def test_a_rival_that_has_gone_silent_is_replaced() -> None:
    known = members()
    known.register(1, register("x", instance="one"), "a:1", 0.0)
    assert known.register(2, register("y", instance="two"), "b:1", 14.0).refusal is not None
    assert known.register(3, register("y", instance="two"), "b:1", 15.0).replaced == 1
