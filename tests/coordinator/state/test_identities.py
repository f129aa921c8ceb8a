"""Which key a machine id belongs to, and which keys are refused."""

from __future__ import annotations

from dora_config.protocol.daemon import Register
from dora_config.protocol.envelope import ProgramVersion
from dora_coordinator.settings import Settings
from dora_coordinator.state.events import DaemonRegistered
from dora_coordinator.state.identities import Identities, MachineRecord, Proof
from dora_coordinator.state.membership import MemberAdmitted, Membership

KEY, OTHER = Proof("a1"), Proof("b2")
NOW = 0.0


def enrolled(*, local: bool = False) -> Identities:
    identities = Identities()
    record = identities.enrol("robot", Proof("a1", local=local))
    assert record == MachineRecord(machine="robot", digest="a1", local=local)
    return identities


def test_the_first_key_of_a_machine_id_is_enrolled_and_then_required() -> None:
    identities = enrolled()
    assert identities.problem("robot", KEY) is None
    assert identities.enrol("robot", KEY) is None
    problem = identities.problem("robot", OTHER)
    assert problem is not None
    assert 'it has another key than machine "robot"' in problem
    assert "dora cluster remove FILE robot" in problem
    assert identities.problem("station", OTHER) is None


def test_a_machine_beside_the_coordinator_may_lose_its_key() -> None:
    identities = enrolled(local=True)
    assert identities.problem("robot", OTHER) is not None, "from elsewhere"
    assert identities.problem("robot", Proof("b2", local=True)) is None
    assert enrolled().problem("robot", Proof("b2", local=True)) is not None, "enrolled elsewhere"


def test_a_removed_key_is_refused_for_good_under_every_machine_id() -> None:
    identities = enrolled()
    record = identities.remove("robot", revoke=True)
    assert record == MachineRecord(machine="robot", removed=("a1",))
    for machine in ("robot", "station"):
        assert "dora cluster remove" in (identities.problem(machine, KEY) or "")
    assert identities.problem("robot", OTHER) is None
    again = identities.enrol("robot", OTHER)
    assert again == MachineRecord(machine="robot", digest="b2", removed=("a1",))

    restarted = Identities()
    restarted.load([again])
    assert restarted.problem("robot", OTHER) is None
    assert restarted.problem("robot", KEY) is not None


def test_a_forgotten_key_may_be_enrolled_again() -> None:
    identities = enrolled()
    assert identities.remove("robot", revoke=False) == MachineRecord(machine="robot", former="a1")
    assert identities.remove("robot", revoke=False) is None
    assert identities.problem("robot", OTHER) is None
    assert identities.problem("robot", KEY) is None
    assert identities.enrol("robot", OTHER) == MachineRecord(machine="robot", digest="b2")


def test_a_key_that_may_be_replaced_can_be_revoked() -> None:
    """A stolen machine, for which `dora cluster up` was tried before it was removed."""
    identities = enrolled()
    identities.remove("robot", revoke=False)
    assert identities.remove("robot", revoke=True) == MachineRecord(
        machine="robot", removed=("a1",)
    )
    assert identities.problem("robot", KEY) is not None


def register(
    membership: Membership, connection: int, proof: Proof, machine_id: str | None = "robot"
) -> MemberAdmitted | str:
    message = Register(
        party=ProgramVersion(program="daemon", release="1"),
        instance="instance",
        incarnation=str(connection),
        machine_id=machine_id,
        public_key="",
    )
    return membership.register(DaemonRegistered(connection, message, "a:1", proof), NOW)


def test_a_daemon_with_another_key_does_not_replace_a_machine() -> None:
    membership = Membership(Settings())
    first = register(membership, 1, KEY)
    assert isinstance(first, MemberAdmitted)
    assert first.enrolled == MachineRecord(machine="robot", digest="a1")
    assert first.member.certificate_name == "robot:a1"
    refused = register(membership, 2, OTHER)
    assert isinstance(refused, str)
    assert 'the daemon at a:1 is refused as "robot"' in refused
    assert membership.is_connected("robot")
    membership.disconnect(1)
    membership.forget("robot")
    assert isinstance(register(membership, 3, OTHER), str), "also when it is away"


def test_a_name_that_no_user_gave_belongs_to_a_key_while_it_is_listed() -> None:
    membership = Membership(Settings())
    first = register(membership, 1, KEY, None)
    assert isinstance(first, MemberAdmitted)
    assert first.enrolled is None, "these names are not stored"
    assert isinstance(register(membership, 2, OTHER, None), str)
    membership.disconnect(1)
    membership.forget("default-instance")
    assert isinstance(register(membership, 3, OTHER, None), MemberAdmitted)
