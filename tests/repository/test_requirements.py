"""What is said of tests that are skipped."""

from __future__ import annotations

import os
import subprocess

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


def test_ci_runs_in_the_environment_of_a_newcomer() -> None:
    """A variable of the machine, such as PYTHONUNBUFFERED, would hide failures."""
    kept = {
        "HOME": "/home/a",
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "CI": "true",
        "DORA_TESTS_SEED": "17",
        "PIP_INDEX_URL": "https://packages.example",
        "UV_INDEX_URL": "https://packages.example",
        "npm_config_registry": "https://packages.example",
        "https_proxy": "http://proxy.example",
        "SSL_CERT_FILE": "/certificates",
        "REQUESTS_CA_BUNDLE": "/certificates",
        "NODE_EXTRA_CA_CERTS": "/certificates",
        "GIT_SSL_CAINFO": "/certificates",
    }
    dropped = {"PYTHONUNBUFFERED": "1", "DORA_AUTH_TOKEN": "a", "LD_LIBRARY_PATH": "/lib"}
    done = subprocess.run(
        ["bash", "-euc", ". .ci/newcomer; env -0"],
        cwd=ROOT,
        env=kept | dropped,
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    assert {name: found[name] for name in found if name not in ("PWD", "SHLVL", "_")} == kept
    lines = (ROOT / ".ci/run").read_text().splitlines()
    before = lines.index(". .ci/newcomer")
    assert not [line for line in lines[:before] if ".venv/bin/nox" in line]
