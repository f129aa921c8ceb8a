"""What is said of tests that are skipped."""

from __future__ import annotations

import pytest
from support.requirements import NO_SKIPS, PACKAGES, require, require_installed, summary
from support.sources import ROOT

ALWAYS_THERE = {"util-linux", "openssh-client"}


def skipped(*names: str) -> str:
    with pytest.raises(pytest.skip.Exception) as reason:
        require_installed(*names, path="/nonexistent")
    return f"Skipped: {reason.value}"


def test_one_line_for_each_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NO_SKIPS, raising=False)
    require_installed("/pro*/self/stat")
    with pytest.raises(pytest.skip.Exception) as no_root:
        require(False, "root")
    reasons = [skipped("zsh"), skipped("zsh", "ip", "bridge"), skipped("/no/*/such"), "needs zsh"]
    assert summary([*reasons, f"Skipped: {no_root.value}"]) == [
        "1 skipped without iproute2: apt-get install iproute2",
        "2 skipped without zsh: apt-get install zsh",
        "1 skipped: needs /no/*/such",
        "1 skipped: needs root",
        "1 skipped: needs zsh",
    ]


def test_ci_installs_what_tests_need() -> None:
    installed = set((ROOT / ".ci" / "run").read_text().replace("(", " ").replace(")", " ").split())
    assert set(PACKAGES.values()) - ALWAYS_THERE <= installed
