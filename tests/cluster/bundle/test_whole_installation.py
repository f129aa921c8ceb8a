"""A machine with dora and all its dependencies; the machine is this one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.cluster.installation import Installation, LocalMachine

from dora_cluster.bundle.install import Installed
from dora_cluster.bundle.layout import USER
from dora_cluster.remote_call import MachineProblem

from .conftest import MakeInstaller, put, version_of, versions

pytestmark = pytest.mark.integration


Machine = tuple[LocalMachine, Installed]


def test_second_installation_sends_nothing(
    installer: MakeInstaller, old_version: Installation, installed_machine: Machine
) -> None:
    machine, first = installed_machine
    assert first.dora == str(machine.home / ".local" / "bin" / "dora")
    assert version_of(machine) == "dora 0.1.0"
    machine.sent.clear()
    again = installer(old_version).ensure_installed(machine, USER, lambda text: None)
    assert again == first
    assert machine.sent == []
    tree = Path(first.tree)
    assert json.loads((tree / "bundle.json").read_text())["version"] == "0.1.0"
    assert not list(machine.home.glob(".cache/dora/archives/*")), "the archive is not kept there"


def test_installed_version_uses_only_its_own_packages(
    installed_machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, _ = installed_machine
    (tmp_path / "pydantic.py").write_text("raise SystemExit('not mine')")
    dora = str(machine.home / ".local" / "bin" / "dora")
    monkeypatch.setenv("DORA_TESTS_X", "")
    done = machine.run(["env", f"PYTHONPATH={tmp_path}", dora, "self", "test"])
    assert done.code == 0, done
    python = machine.home / ".local/share/dora/versions/current/bin/python"
    done = machine.run([str(python), "-c", "import sys, pyarrow; print(sys.path, pyarrow)"])
    assert done.code == 0, done
    assert str(Path(sys.prefix)) not in done.stdout


def test_a_machine_gets_no_ssh(installed_machine: Machine) -> None:
    machine, installed = installed_machine
    (site,) = Path(installed.tree).glob("lib/python3*/site-packages")
    there = {path.name for path in site.iterdir()}
    assert {"dora_config", "dora_daemon", "dora_recordings", "dora_ros2", "pyarrow"} <= there
    for name in ("dora-gate", "dora-lerobot-steps"):
        node = machine.run([f"{installed.tree}/bin/{name}", "--help"])
        assert node.stdout.startswith(f"usage: {name}"), node
    assert not there & {"dora_cluster", "paramiko", "nacl", "bcrypt", "uv"}
    dora = str(machine.home / ".local" / "bin" / "dora")
    assert machine.run([dora, "replay", "--help"]).code == 0
    done = machine.run([dora, "cluster", "status"])
    assert "`dora cluster` is part of the wheel dora-cluster, which is not installed" in done.stderr


def test_version_that_fails_its_self_test_is_not_used(
    linked_installer: MakeInstaller, broken_version: Installation, installed_machine: Machine
) -> None:
    machine, _ = installed_machine
    with pytest.raises(
        MachineProblem, match=r"0\.3\.0-py.* does not pass its self-test"
    ) as problem:
        put(linked_installer(broken_version), machine)
    assert "send_output" in str(problem.value)
    assert version_of(machine) == "dora 0.1.0"
    assert [name[:5] for name in versions(machine)] == ["0.1.0"]
