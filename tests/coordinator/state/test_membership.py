"""Which daemons are admitted, refused, replaced or lost."""

from __future__ import annotations

import pytest

from dora_config.protocol.daemon import Heartbeat, Register
from dora_config.protocol.envelope import ProgramVersion
from dora_coordinator.settings import Settings
from dora_coordinator.state.events import DaemonMessageReceived, DaemonRegistered
from dora_coordinator.state.identities import Proof
from dora_coordinator.state.membership import MemberAdmitted, Membership


def register(
    membership: Membership,
    connection: int,
    incarnation: str,
    address: str,
    now: float,
    *,
    instance: str = "disk",
    boot: str = "b",
    machine: str = "robot",
) -> MemberAdmitted | str:
    message = Register(
        party=ProgramVersion(program="daemon", release="1"),
        instance=instance,
        incarnation=incarnation,
        machine_id=machine,
        boot_id=boot,
        public_key="",
    )
    proof = Proof("a1")
    return membership.register(DaemonRegistered(connection, message, address, proof), now)


def replaced(change: MemberAdmitted | str) -> int | None:
    assert isinstance(change, MemberAdmitted)
    return change.replaced


def refusal(change: MemberAdmitted | str) -> str:
    assert isinstance(change, str)
    return change


def test_a_restarted_daemon_replaces_its_old_connection() -> None:
    membership = Membership(Settings())
    assert replaced(register(membership, 1, "first", "a:1", 0.0)) is None
    assert replaced(register(membership, 2, "second", "a:2", 1.0)) == 1
    assert replaced(register(membership, 3, "second", "a:3", 2.0)) == 2
    assert membership.disconnect(2) is None
    (member,) = membership.all()
    assert (member.restarts, member.connection) == (1, 3)


def test_one_of_two_daemons_with_a_copied_state_is_refused() -> None:
    membership = Membership(Settings())
    register(membership, 1, "original", "a:1", 0.0)
    assert replaced(register(membership, 2, "copy", "b:1", 1.0)) == 1
    reason = refusal(register(membership, 3, "original", "a:2", 2.0))
    assert 'machine id "robot" is taken by the connected daemon at b:1' in reason
    assert "the daemon at a:2 (a copy of its installation) is refused; on one of them" in reason
    membership.disconnect(2)
    assert replaced(register(membership, 4, "original", "a:3", 3.0)) is None


def test_a_copied_disk_in_another_machine_is_refused_at_once() -> None:
    membership = Membership(Settings())
    register(membership, 1, "original", "a:1", 0.0, boot="one")
    heartbeat(membership, 1, 3.0)
    reason = refusal(register(membership, 2, "copy", "b:1", 4.0, boot="two"))
    assert "a copy of its installation" in reason


def test_a_rebooted_machine_is_admitted_before_its_old_connection_times_out() -> None:
    membership = Membership(Settings())
    register(membership, 1, "before", "a:1", 0.0, boot="one")
    assert replaced(register(membership, 2, "after", "a:2", 5.0, boot="two")) == 1
    (member,) = membership.all()
    assert member.rebooted
    register(membership, 3, "again", "a:3", 6.0, boot="two")
    (member,) = membership.all()
    assert not member.rebooted


def heartbeat(
    membership: Membership, connection: int, now: float, offset: float | None = None
) -> float | None:
    member = membership.on_connection(connection)
    assert member is not None
    return membership.received(member, DaemonMessageReceived(connection, Heartbeat(), offset), now)


def silences(membership: Membership, connection: int, now: float) -> list[float]:
    silence = heartbeat(membership, connection, now)
    return [] if silence is None else [silence]


def test_a_machine_that_sends_again_after_a_long_silence_is_reported_once_a_minute() -> None:
    membership = Membership(Settings())
    register(membership, 1, "x", "a:1", 0.0)
    assert silences(membership, 1, 3.0) == []
    assert silences(membership, 1, 13.0) == [10.0]
    assert silences(membership, 1, 23.0) == []
    assert silences(membership, 1, 83.0) == [60.0]


def test_a_stall_of_the_coordinator_is_not_the_silence_of_its_machines() -> None:
    membership = Membership(Settings())
    for connection, name in enumerate(("one", "two"), start=1):
        register(membership, connection, "x", "a:1", 0.0, machine=name)
    assert silences(membership, 1, 10.0) == []
    assert silences(membership, 2, 10.1) == []
    heartbeat(membership, 1, 13.0)
    heartbeat(membership, 1, 19.0)
    assert silences(membership, 2, 20.0) == [pytest.approx(9.9)]


def test_the_silence_of_the_only_connected_machine_is_its_own() -> None:
    """Also if the coordinator was stopped: nothing else shows that."""
    membership = Membership(Settings())
    for connection, name in enumerate(("one", "two"), start=1):
        register(membership, connection, "x", "a:1", 0.0, machine=name)
    membership.disconnect(2)
    assert silences(membership, 1, 20.0) == [20.0]


def test_another_installation_replaces_a_daemon_that_is_silent() -> None:
    membership = Membership(Settings())
    register(membership, 1, "x", "a:1", 0.0, instance="one")
    reason = refusal(register(membership, 2, "y", "b:1", 14.0, instance="two"))
    assert "(another installation) is refused; give one of them another --machine-id" in reason
    assert replaced(register(membership, 3, "y", "b:1", 15.0, instance="two")) == 1


def test_a_silent_daemon_is_lost_and_can_be_forgotten() -> None:
    membership = Membership(Settings())
    register(membership, 1, "x", "a:1", 0.0)
    heartbeat(membership, 1, 10.0)
    assert membership.next_deadline() == 40.0
    assert membership.silent(39.0) == []
    membership.forget("robot")
    (member,) = membership.all()
    assert membership.silent(40.0) == [1]
    assert membership.disconnect(1) is member
    assert not membership.is_connected("robot")
    membership.forget("robot")
    assert membership.all() == []


def test_the_offset_of_a_clock_is_the_one_of_the_fastest_heartbeat_until_it_is_set() -> None:
    membership = Membership(Settings())
    admitted = register(membership, 1, "i1", "10.0.0.2:1", 0.0)
    assert isinstance(admitted, MemberAdmitted)

    def after(offset: float) -> float | None:
        heartbeat(membership, 1, 1.0, offset)
        return admitted.member.clock_offset

    assert [after(offset) for offset in (0.461, 0.498, 0.47, 0.5)] == [0.461, 0.498, 0.498, 0.5]
    assert [after(offset) for offset in (-3.04, -3.0, -3.039, 60.0)] == [-3.04, -3.0, -3.0, 60.0]
