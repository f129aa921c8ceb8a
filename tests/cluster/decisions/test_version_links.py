"""The links to the versions on a machine, also after a switch that was cut off."""

from __future__ import annotations

import pytest

from dora_cluster.decisions.versions import VersionLinks, Versions, installed_versions

OLD, NEW = "0.1.0-py3.11", "0.2.0-py3.11"


@pytest.mark.parametrize(
    ("links", "running", "expected"),
    [
        ((NEW, OLD), NEW, (NEW, OLD)),
        ((NEW, OLD), "", (NEW, OLD)),
        (("", ""), OLD, ("", "")),
        ((NEW, OLD), OLD, (OLD, "")),  # an upgrade was cut off
        ((OLD, OLD), NEW, (NEW, OLD)),  # a rollback was cut off
        ((NEW, OLD), "0.0.9-py3.11", (NEW, OLD)),
    ],
)
def test_links_of_the_running_version(
    links: tuple[str, str], running: str, expected: tuple[str, str]
) -> None:
    assert VersionLinks(*links).of_running(running) == VersionLinks(*expected)


@pytest.mark.parametrize(
    ("current", "previous", "running", "expected"),
    [
        (NEW, OLD, NEW, Versions("0.2.0", "0.1.0", there=("0.1.0", "0.2.0"))),
        (NEW, OLD, OLD, Versions("0.2.0", "0.1.0", there=("0.1.0", "0.2.0"))),
        (OLD, OLD, OLD, Versions("0.1.0", returned=True, there=("0.1.0", "0.2.0"))),
        (OLD, OLD, NEW, Versions("0.2.0", "0.1.0", there=("0.1.0", "0.2.0"))),
        (None, None, "", Versions("none", there=("0.1.0", "0.2.0"))),
    ],
)
def test_installed_versions(
    current: str | None, previous: str | None, running: str, expected: Versions
) -> None:
    found = {
        "trees": [{"name": OLD, "version": "0.1.0"}, {"name": NEW, "version": "0.2.0"}],
        "current": current and {"name": current},
        "previous": previous and {"name": previous},
    }
    assert installed_versions(found, running) == expected
