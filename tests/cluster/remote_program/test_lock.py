"""The program that holds the lock of a machine, without SSH."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.cluster.real_lock import held_lock
from support.fleets.held_lock import INFO
from support.requirements import require_root

from dora_cluster.remote_program import lock
from dora_cluster.remote_program.lock import InputEnded, LeasedInput, acquire, lock_file
from dora_cluster.remote_program.protocol import decode_reply

BOB = {"key": "b", "operator": "bob@laptop", "command": "dora cluster up fleet.yml", "pid": 8}


class _EndingInput(LeasedInput):
    """Standard input that ends at the third wait."""

    waits = 0

    def wait(self, *, within: float = 0.0) -> None:
        self.waits += 1
        if self.waits == 3:
            raise InputEnded


@pytest.fixture(autouse=True)
def ending_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LeasedInput", _EndingInput)
    monkeypatch.setattr(lock, "POLL_INTERVAL", 0.01)


def answers(
    capfd: pytest.CaptureFixture[str], info: dict[str, Any] = BOB, *, wait: bool
) -> list[dict[str, Any]]:
    acquire(info, wait, 60.0)
    return [decode_reply(line) for line in capfd.readouterr().out.splitlines()]


def test_files_of_the_lock_are_private_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(Path.home() / "a" / "state"))
    lock_file().parent.mkdir(parents=True)
    lock_file().parent.chmod(0o777)
    with held_lock():
        assert lock_file().stat().st_mode & 0o777 == 0o600
        assert lock_file().parent.stat().st_mode & 0o777 == 0o700
    assert not (Path.home() / "a").exists()


def test_a_folder_of_another_account_is_refused() -> None:
    """Its owner could hold the lock."""
    require_root()
    lock_file().parent.mkdir(parents=True)
    lock_file().touch()
    program = (
        "import os\n"
        "from dora_cluster.remote_program.lock import acquire\n"
        "os.setuid(65534)\n"
        "acquire({}, False, 60.0)\n"
    )
    os.chown(lock_file().parent, 1234, 1234)
    lock_file().parent.chmod(0o777)
    for above in lock_file().parent.parents[:2]:
        above.chmod(0o755)
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    folder = lock_file().parent
    assert f"{folder}: Operation not permitted; this account must own the folder" in done.stderr


@pytest.fixture
def killed_holder() -> None:
    """Leave the file of a holder that was killed."""
    with held_lock() as holder:
        os.kill(holder, signal.SIGKILL)
    assert b"ada@desk" in lock_file().read_bytes()


@pytest.mark.usefixtures("killed_holder")
def test_a_killed_holder_does_not_block(capfd: pytest.CaptureFixture[str]) -> None:
    assert [one["held"] for one in answers(capfd, wait=False)] == [True]


@pytest.mark.parametrize("text", ["", "[]", "no json", '{"protocol": 1, "result": {"holder": 1}}'])
@pytest.mark.parametrize("wait", [False, True])
def test_text_that_the_holder_did_not_write_is_not_shown(
    text: str, wait: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with held_lock():
        lock_file().write_text(text)
        [answer] = answers(capfd, wait=wait)
    assert answer["waiting" if wait else "holder"] is None


def test_a_holder_that_writes_its_facts_late_is_shown_once(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with held_lock():
        facts = lock_file().read_text()
        lock_file().write_text("")
        monkeypatch.setattr(_EndingInput, "wait", _writing(facts))
        [answer] = answers(capfd, wait=True)
    assert answer["waiting"]["operator"] == INFO["operator"]


def _writing(facts: str) -> Any:
    before = _EndingInput.wait

    def wait(self: _EndingInput, *, within: float = 0.0) -> None:
        lock_file().write_text(facts)
        before(self)

    return wait


def test_a_removed_file_is_not_the_lock(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder ended after a waiting command had opened it."""
    monkeypatch.setattr(fcntl, "lockf", lambda *_: lock_file().unlink())
    assert answers(capfd, wait=True)[0]["waiting"] is None


def test_the_lock_is_held_without_facts_on_a_full_disk(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(lock, "_send", lambda answer: shown.append(answer))
    shown: list[dict[str, Any]] = []
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        acquire(BOB, False, 60.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert shown == [{"held": True}]
