"""The lease of a machine, without SSH."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.requirements import require_root

from dora_cluster.remote_program.lease import give_back, lease_file, take
from dora_cluster.remote_program.protocol import RemoteProblem

ADA = {"key": "a", "operator": "ada@desk", "command": "dora cluster up fleet.yml", "pid": 7}
BOB = {"key": "b", "operator": "bob@laptop", "command": "dora cluster up fleet.yml", "pid": 8}


def holder(info: dict[str, Any], ended: str | None = None) -> str | None:
    """Request the lease and return the operator who has it instead."""
    found = take(info, 60.0, ended)["holder"]
    return None if found is None else str(found["operator"])


def grow_old() -> None:
    before = time.time() - 61
    os.utime(lease_file(), (before, before))


def test_one_command_has_the_lease_until_it_gives_it_back() -> None:
    assert holder(ADA) is None
    assert holder(BOB) == "ada@desk"
    assert holder(ADA) is None, "another entry of the same command"
    give_back("b", 60.0)
    assert holder(BOB) == "ada@desk"
    give_back("a", 60.0)
    assert holder(BOB) is None


def test_a_command_that_ended_without_cleaning_up_does_not_block() -> None:
    holder(ADA)
    grow_old()
    assert holder(BOB) is None
    assert holder(ADA) == "bob@laptop"
    assert holder(ADA, ended="x") == "bob@laptop"
    assert holder(ADA, ended="b") is None


@pytest.mark.parametrize("text", ["", "[]", "no json"])
def test_other_text_does_not_block(text: str) -> None:
    holder(ADA)
    lease_file().write_text(text)
    assert holder(BOB) is None


def test_a_record_of_another_version_is_reported() -> None:
    holder(ADA)
    lease_file().write_text('{"protocol": 2, "result": {"key": "a"}}')
    with pytest.raises(RemoteProblem, match=r"another version of dora .* protocol is 2"):
        take(BOB, 60.0)


def test_the_record_is_private_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(Path.home() / "a" / "state"))
    lease_file().parent.mkdir(parents=True)
    lease_file().parent.chmod(0o777)
    holder(ADA)
    assert lease_file().parent.stat().st_mode & 0o777 == 0o700
    give_back("a", 60.0)
    assert not (Path.home() / "a").exists()


_COMMAND = """
import os, sys
from dora_cluster.remote_program.lease import give_back, take
while os.path.exists("go"):
    if take({"key": sys.argv[1], "operator": "x"}, 60.0)["holder"] is None:
        os.close(os.open("inside", os.O_CREAT | os.O_EXCL))  # fails if another command has it
        os.unlink("inside")
        give_back(sys.argv[1], 60.0)
        print(end="x", flush=True)
"""


def test_of_several_commands_one_has_the_lease(tmp_path: Path) -> None:
    """Each gives it back at once, which removes file and folder while others open them."""
    (tmp_path / "go").touch()
    with ExitStack() as started:
        commands = [
            started.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _COMMAND, str(number)],
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                )
            )
            for number in range(3)
        ]
        started.callback((tmp_path / "go").unlink, missing_ok=True)
        for command in commands:
            assert command.stdout is not None
            assert command.stdout.read(5) == b"x" * 5
        (tmp_path / "go").unlink()
        for command in commands:
            command.communicate(timeout=60)
    assert [command.returncode for command in commands] == [0, 0, 0]


def test_a_folder_of_another_account_is_refused() -> None:
    """Its owner could take the lease."""
    require_root()
    lease_file().parent.mkdir(parents=True)
    program = (
        "import os\n"
        "from dora_cluster.remote_program.lease import take\n"
        "os.setuid(65534)\n"
        "take({}, 60.0)\n"
    )
    os.chown(lease_file().parent, 1234, 1234)
    lease_file().parent.chmod(0o777)
    for above in lease_file().parent.parents[:2]:
        above.chmod(0o755)
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    folder = lease_file().parent
    assert f"{folder}: Operation not permitted; this account must own the folder" in done.stderr


def test_commands_on_a_full_disk_work_without_a_lease() -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(errno, "EDQUOT", errno.EFBIG)
            assert take(ADA, 60.0)["path"] is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert holder(BOB) is None
