"""Installation on a machine, with real wheels and processes; the machine is this one."""

from __future__ import annotations

import os
import signal
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from packaging.requirements import Requirement
from support.cluster.installation import Installation, LocalMachine
from support.sources import ROOT
from support.waiting import wait_until

from dora_cluster.bundle import install
from dora_cluster.bundle.dependencies import Platform, WheelsMissing, pins_for
from dora_cluster.bundle.install import probe
from dora_cluster.bundle.layout import SYSTEM, USER, Layout, system
from dora_cluster.bundle.own_packages import NotBundled, own_packages, packages_for_machines
from dora_cluster.connection import FinishedCommand
from dora_cluster.errors import RemoteCommandFailed
from dora_cluster.remote_call import MachineProblem, call
from dora_cluster.remote_program.protocol import decode_reply, encode_result

from .conftest import MakeInstaller, put, version_of, versions

pytestmark = pytest.mark.integration


LOAD_TEST = install.load_test


def test_interrupted_transfer_is_resumed(
    small_installer: MakeInstaller, old_version: Installation, machine: LocalMachine
) -> None:
    machine.cut_after = 500_000
    with pytest.raises(ConnectionError):
        put(small_installer(old_version), machine)
    put(small_installer(old_version), machine)
    whole = next(Path(os.environ["XDG_CACHE_HOME"]).glob("dora/archives/0.1.0-*")).stat().st_size
    assert machine.sent == [500_000, whole - 500_000]
    assert version_of(machine) == "dora 0.1.0"


def test_corrupt_archive_is_not_unpacked(
    small_installer: MakeInstaller, old_version: Installation, machine: LocalMachine
) -> None:
    machine.cut_after = 500_000
    with pytest.raises(ConnectionError):
        put(small_installer(old_version), machine)
    (part,) = machine.home.glob(".cache/dora/archives/*.part")
    with part.open("r+b") as file:
        file.seek(5000)
        file.write(b"spoilt")
    with pytest.raises(MachineProblem, match="arrived broken"):
        put(small_installer(old_version), machine)
    put(small_installer(old_version), machine)
    assert version_of(machine) == "dora 0.1.0"


def test_first_version_that_does_not_load_is_removed(
    small_installer: MakeInstaller,
    old_version: Installation,
    machine: LocalMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(install, "load_test", LOAD_TEST)
    monkeypatch.setattr(install, "TESTED_MODULES", ("dora_config.errors", "absent_library"))
    with pytest.raises(MachineProblem, match="does not pass its self-test") as problem:
        put(small_installer(old_version), machine)
    assert "absent_library" in str(problem.value)
    assert versions(machine) == set()


def test_version_whose_test_was_cut_off_is_tested_again(
    small_installer: MakeInstaller,
    old_version: Installation,
    machine: LocalMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tested: list[str] = []

    def cut_off(_machine: object, tree: str) -> None:
        tested.append(tree)
        if len(tested) == 1:
            raise ConnectionError("the connection broke")

    monkeypatch.setattr(install, "load_test", cut_off)
    with pytest.raises(ConnectionError):
        put(small_installer(old_version), machine)
    for _ in range(2):
        put(small_installer(old_version), machine)
    assert len(tested) == 2
    assert len(machine.sent) == 1, "it was sent once"


def test_archive_that_cannot_be_made_is_not_tried_again(
    small_installer: MakeInstaller,
    old_version: Installation,
    machine: LocalMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[object] = []

    def fail(platform: object, *_: object, **__: object) -> None:
        attempts.append(platform)
        raise WheelsMissing("the package index cannot be reached")

    monkeypatch.setattr(install, "make_archive", fail)
    monkeypatch.setattr(install, "read_archive", corrupt)
    used = small_installer(old_version)
    for _ in range(2):
        with pytest.raises(WheelsMissing, match="cannot be reached"):
            put(used, machine)
    assert len(attempts) == 1


def corrupt(path: Path) -> None:
    """Stand in for `read_archive` of a truncated file."""
    raise EOFError("Compressed file ended before the end-of-stream marker was reached")


def test_switch_rollback_and_collect(
    small_installer: MakeInstaller,
    old_version: Installation,
    new_version: Installation,
    machine: LocalMachine,
) -> None:
    put(small_installer(old_version), machine)
    put(small_installer(new_version), machine)
    assert version_of(machine) == "dora 0.2.0"
    prefix, link = USER.prefix, str(machine.home / ".local" / "bin" / "dora")
    old, new = sorted(versions(machine))
    for _ in range(2):
        call(machine, "versions.switch", prefix=prefix, link=link, name=old, returned=True)
        assert version_of(machine) == "dora 0.1.0"
    after = call(machine, "versions.probe", prefix=prefix, link=USER.link)
    assert after["previous"]["name"] == after["current"]["name"] == old
    assert {one["version"] for one in after["trees"]} == {"0.1.0", "0.2.0"}
    with pytest.raises(MachineProblem, match=r"version 0\.3\.0 does not exist in"):
        call(machine, "versions.switch", prefix=prefix, link=link, name="0.3.0")
    assert call(machine, "versions.collect", prefix=prefix)["removed"] == [new]


def test_version_in_use_is_not_removed(
    small_installer: MakeInstaller, old_version: Installation, machine: LocalMachine
) -> None:
    installed = small_installer(old_version).ensure_installed(machine, USER, lambda text: None)
    python = str(Path(installed.tree) / "bin" / "python")
    prefix = USER.prefix
    process = subprocess.Popen([python, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        call(machine, "versions.restore", prefix=prefix, current="", previous="")
        name = Path(installed.tree).name
        wait_until(
            lambda: (
                call(machine, "versions.probe", prefix=prefix, link=USER.link)["in_use"] == [name]
            ),
            what="use",
        )
        assert call(machine, "versions.collect", prefix=prefix)["removed"] == []
        with pytest.raises(MachineProblem, match="processes still run from"):
            call(machine, "versions.remove", prefix=prefix, link=installed.dora)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert call(machine, "versions.collect", prefix=prefix)["removed"] == [name]


def test_remove_leaves_no_files(
    small_installer: MakeInstaller, old_version: Installation, machine: LocalMachine
) -> None:
    put(small_installer(old_version), machine)
    small_installer(old_version).remove(machine, USER)
    left = {path for path in machine.home.rglob("*") if not path.is_dir()}
    assert left == set()


@pytest.mark.parametrize(
    ("short", "device", "place"),
    [
        ("free", -1, ".local/share/dora/versions"),
        ("archives_free", -1, ".cache/dora/archives"),
    ],
)
def test_too_small_disk_is_an_error_before_the_transfer(
    small_installer: MakeInstaller,
    old_version: Installation,
    machine: LocalMachine,
    short: str,
    device: int,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = machine.run

    def run_on_small_disk(argv: Sequence[str], **options: Any) -> FinishedCommand:
        done = run(argv, **options)
        if argv[-1] not in ("versions.probe", "versions.make_room"):
            return done
        found = decode_reply(done.stdout) | {short: 10 << 20, "archives_device": device}
        return FinishedCommand(0, encode_result(found).decode(), "")

    monkeypatch.setattr(machine, "run", run_on_small_disk)
    expected = rf"robot .*{place} has 10 MiB free, dora needs \d+ MiB"
    with pytest.raises(MachineProblem, match=expected):
        put(small_installer(old_version), machine)
    assert machine.sent == []


def test_disk_that_is_full_during_the_transfer_keeps_no_file(
    small_installer: MakeInstaller,
    old_version: Installation,
    machine: LocalMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send = machine.send

    def fill(source: Path, target: str, **options: Any) -> None:
        machine.cut_after = 500_000
        with pytest.raises(ConnectionError):
            send(source, target, **options)
        raise RemoteCommandFailed(machine.name, f"{target} cannot be written: No space left", 1)

    with monkeypatch.context() as patch:
        patch.setattr(machine, "send", fill)
        with pytest.raises(RemoteCommandFailed, match=r"robot .*\.part cannot be written: No sp"):
            put(small_installer(old_version), machine)
    assert {path for path in machine.home.rglob("*") if not path.is_dir()} == set()


def test_disk_that_is_full_during_unpacking_keeps_no_file(
    small_installer: MakeInstaller,
    old_version: Installation,
    machine: LocalMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A limit on the size of files, above the archive's, stands for a full disk."""
    run = machine.run

    def run_with_limit(argv: Sequence[str], **options: Any) -> FinishedCommand:
        if argv[-1] == "versions.unpack":
            argv = ["prlimit", "--fsize=100000", *argv]
        return run(argv, **options)

    monkeypatch.setattr(machine, "run", run_with_limit)
    with pytest.raises(MachineProblem, match=r"robot .*File too large"):
        put(small_installer(old_version), machine)
    assert {path for path in machine.home.rglob("*") if not path.is_dir()} == set()


def test_editable_installation_is_refused() -> None:
    with pytest.raises(NotBundled, match="editable installation"):
        own_packages()


def test_the_bridge_to_ros_is_sent_if_it_is_installed(
    old_version: Installation, tmp_path: Path
) -> None:
    for entry in old_version.site.iterdir():
        if not entry.name.startswith("dora_ros2"):
            (tmp_path / entry.name).symlink_to(entry)
    bridge = PurePosixPath("dora_ros2/bridge.py")
    assert bridge in [file.path for file in packages_for_machines([str(old_version.site)]).files]
    assert bridge not in [file.path for file in packages_for_machines([str(tmp_path)]).files]
    pins = {pin.split("==")[0] for pin in pins_for(Platform.from_key("x86_64-glibc2.36-py3.11"))}
    needed = tomllib.loads((ROOT / "packages/dora-ros2/pyproject.toml").read_text())["project"]
    names = {Requirement(line).name for line in needed["dependencies"]}
    assert names - pins == {"dora-node-api"}


def test_changed_files_are_refused(old_version: Installation) -> None:
    path = old_version.site / "dora_cli" / "errors.py"
    text = path.read_text()
    path.write_text(text + "# by hand\n")
    try:
        with pytest.raises(
            NotBundled, match=r"errors\.py was changed after dora-cli-core 0\.1\.0 was installed"
        ):
            own_packages([str(old_version.site)])
    finally:
        path.write_text(text)


def test_other_prefix_than_before_is_refused(tmp_path: Path, machine: LocalMachine) -> None:
    link = tmp_path / "bin" / "dora"
    (tmp_path / "old" / "1").mkdir(parents=True)
    (tmp_path / "old" / "1" / "bundle.json").write_text("{}")
    call(machine, "versions.switch", prefix=f"{tmp_path}/old", link=str(link), name="1")
    assert (
        probe(machine, Layout(f"{tmp_path}/old", str(link), sudo=False))["current"]["name"] == "1"
    )
    moved = Layout(f"{tmp_path}/new", str(link), sudo=False)
    with pytest.raises(MachineProblem, match=f"dora is installed in {tmp_path}/old there"):
        probe(machine, moved)
    link.unlink()
    assert probe(machine, moved)["current"] is None
    link.symlink_to("/usr/bin/true")  # not made by dora: `switch` refuses to replace a file only
    assert probe(machine, moved)["current"] is None


def test_prefix_needs_the_folder_above_it(tmp_path: Path, machine: LocalMachine) -> None:
    layout = system(f"{tmp_path}/disk/dora")
    assert (layout.link, layout.sudo) == (SYSTEM.link, True)
    with pytest.raises(MachineProblem, match=r"the folder above .*/disk/dora \(.* does not exist"):
        probe(machine, layout)
    assert system(None) == SYSTEM
