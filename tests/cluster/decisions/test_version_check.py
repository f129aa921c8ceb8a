"""Which switches of versions are refused before they begin."""

from __future__ import annotations

from dora_cluster.bundle.formats import (
    CONTROL_PLANE,
    DATAFLOWS,
    LINK,
    OURS,
    RECORDS,
    RUNNER,
    Formats,
    parse,
)
from dora_cluster.decisions.versions import NewVersion, VersionCheck, Versions, check_switch

NOW: Formats = {
    RUNNER: (1, 4),
    LINK: (1, 4),
    CONTROL_PLANE: (1, 4),
    RECORDS: (1, 4),
    DATAFLOWS: (1, 4),
}


def checked(*running: str, **changed: tuple[int, int]) -> VersionCheck:
    """Check a switch of a machine whose dora 0.1.0 has the formats ``NOW``."""
    names = {
        "runner": RUNNER,
        "link": LINK,
        "control": CONTROL_PLANE,
        "records": RECORDS,
        "dataflows": DATAFLOWS,
    }
    target = {**NOW, **{names[name]: version for name, version in changed.items()}}
    there = Versions("0.1.0", in_use=("0.1.0",), formats={"0.1.0": NOW})
    names_of = {"robot": running} if running else {}
    return check_switch(
        {"robot": there}, {"robot": NewVersion("0.2.0", target)}, names_of, names_of, NOW
    )


def test_neighbouring_minor_versions_may_be_switched() -> None:
    for minor in (3, 4, 5):
        version = (1, minor)
        found = checked("patrol", runner=version, link=version, control=version, records=version)
        assert found == VersionCheck((), ())


def test_runners_that_could_not_be_controlled_are_named() -> None:
    (problem,) = checked("arm", "patrol", runner=(1, 6)).problems
    assert problem == (
        "robot: the daemon of dora 0.2.0 could not control the nodes that dora 0.1.0 runs there "
        "(runner protocol 1.4 and 1.6); run `dora stop arm`, `dora stop patrol` before, and start "
        "them again afterwards"
    )
    assert checked(runner=(2, 0)) == VersionCheck((), ()), "nothing runs there"


def test_links_that_could_not_connect_are_remarked() -> None:
    found = checked("patrol", link=(2, 0))
    assert found.problems == ()
    (remark,) = found.remarks
    assert "with those that dora 0.1.0 runs on other machines (link protocol 1.4 and 2.0)" in remark
    assert "run `dora restart patrol` after this command" in remark


def test_a_daemon_that_could_not_connect_is_refused() -> None:
    (problem,) = checked(control=(1, 2)).problems
    assert "could not connect to the coordinator (control plane protocol 1.4 and 1.2)" in problem


def test_only_records_of_a_later_major_version_cannot_be_read() -> None:
    assert checked(records=(2, 0)) == VersionCheck((), ())
    assert checked(records=(1, 0)) == VersionCheck((), ())
    (problem,) = checked(records=(0, 9)).problems
    assert "dora 0.2.0 cannot read what dora 0.1.0 has written there" in problem
    assert "(records of the daemon: version 1.4, it reads 0.x)" in problem


def test_dataflows_of_a_later_major_version_cannot_be_read() -> None:
    assert checked(dataflows=(2, 0)) == VersionCheck((), ())
    there, from_coordinator = checked(dataflows=(0, 9)).problems
    assert "(format of dataflows: version 1.4, it reads 0.x)" in there
    assert "could not connect to the coordinator (format of dataflows" in from_coordinator


def test_versions_without_known_formats_are_not_refused() -> None:
    there = {"robot": Versions("0.1.0", in_use=("0.1.0",))}
    target = {"robot": NewVersion("0.2.0", OURS)}
    assert check_switch(there, target, {"robot": ("patrol",)}, {}, {}) == VersionCheck((), ())
    assert parse({RUNNER: [1, 2]}) == {RUNNER: (1, 2)}
