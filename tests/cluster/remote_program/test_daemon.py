"""Logs, stops and files of daemons, and the survey, without a daemon."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from support.waiting import wait_until

from dora_cluster.remote_program import coordinator, daemon, existing_daemons
from dora_cluster.remote_program.paths import last_lines, state_dir
from dora_cluster.remote_program.protocol import RemoteProblem
from dora_daemon.process_tree.runtime_dir import RuntimeDir


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\xffone\ntwo\n")
    assert last_lines(log, 5) == ["\ufffdone", "two"]
    assert last_lines(log, 1) == ["two"]
    assert last_lines(log, 0) == []
    log.write_bytes(b"".join(b"%09d\n" % number for number in range(10_000)))
    found = last_lines(log, 10_000)
    assert found == [f"{number:09d}" for number in range(10_000 - len(found), 10_000)]
    assert sum(len(line) + 1 for line in found) <= 1 << 16
    with pytest.raises(FileNotFoundError):
        last_lines(tmp_path / "absent", 0)


def test_a_daemon_may_end_before_its_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [{"pid": 1, "words": []}, None]

    def end(_pid: int, _signal: signal.Signals) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(daemon, "_running", lambda _: found.pop(0))
    monkeypatch.setattr(os, "kill", end)
    assert daemon.stop("robot", hand_over=False, within=0.0) == {"stopped": True}


def test_clean_keeps_runs_that_are_starting(home: Path) -> None:
    runs = state_dir() / "run"
    ended = RuntimeDir.create(runs)
    ended.release()
    (runs / "7").mkdir()  # a process that is starting has not locked its folder yet
    with (runs / ".lock").open() as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        cleaning = threading.Thread(target=daemon.clean, args=("robot", False))
        cleaning.start()
        lock = (runs / "7" / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    cleaning.join(30)
    assert (runs / "7").is_dir()
    assert (runs / ".lock").exists()
    lock.close()
    daemon.clean("robot", keep_state=False)
    assert not state_dir().exists()


def test_a_start_creates_the_folder_again_that_was_removed_while_it_waited(home: Path) -> None:
    runs = state_dir() / "run"
    runs.mkdir(parents=True)
    created: list[RuntimeDir] = []
    with (runs / ".lock").open("w") as removing:
        fcntl.flock(removing, fcntl.LOCK_EX)
        start = threading.Thread(target=lambda: created.append(RuntimeDir.create(runs)))
        start.start()
        inode = f":{(runs / '.lock').stat().st_ino} "
        wait_until(
            lambda: any(
                "->" in line and inode in line
                for line in Path("/proc/locks").read_text().splitlines()
            ),
            what="the start waits for the lock",
        )
        (runs / ".lock").unlink()
        runs.rmdir()
    start.join(30)
    assert created[0].path.is_dir()
    assert (runs / ".lock").exists()
    created[0].release()
    daemon.clean("robot", keep_state=False)


def test_unusual_units_do_not_prevent_the_survey(home: Path) -> None:
    folder = home / ".config/systemd/user"
    folder.mkdir(parents=True)
    for name, line in {
        "edited": "/usr/bin/dora daemon --machine-id edited --local-listen-port many",
        "unclosed": "/usr/bin/dora daemon '",
    }.items():
        (folder / f"dora-daemon-{name}.service").write_text(f"ExecStart={line}\n")
    (folder / "dora-daemon-gone.service").symlink_to(folder / "absent")
    (folder / "dora-daemon-folder.service").mkdir()  # as unreadable as one of another user
    found = {one["id"]: one for one in existing_daemons.survey()["daemons"]}
    assert found.keys() >= {"edited", "unclosed", "folder"}
    assert "gone" not in found
    assert found["edited"]["pid"] is None


def test_copy_of_a_store_is_private_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store.sqlite3"
    with sqlite3.connect(store) as database:
        database.execute("create table t (x)")
    database.close()
    real = sqlite3.connect
    modes: list[int] = []

    def connect(path: Path) -> sqlite3.Connection:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        return real(path)

    monkeypatch.setattr(sqlite3, "connect", connect)
    copy = Path(coordinator.copy_store("1.0.0", str(store))["copy"])
    assert modes[1] == 0o600
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600

    def fail(_path: Path) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite3, "connect", fail)
    with pytest.raises(RemoteProblem, match="cannot be copied: database or disk is full"):
        coordinator.copy_store("1.0.1", str(store))
    assert sorted(path.name for path in tmp_path.iterdir()) == [store.name, copy.name]
