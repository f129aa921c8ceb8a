"""State directory of a daemon: private, locked, replaced atomically."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest
from support.simulation.fleets import dataflow

from dora_daemon.agent import part_files
from dora_daemon.agent.part_files import DaemonFiles, DaemonStateError
from dora_daemon.agent.records import PartRecord


def record(number: int, **more: object) -> PartRecord:
    made = PartRecord(
        dataflow_id=str(uuid.UUID(int=number)), attempt=1, spec=dataflow(camera="robot")
    )
    return made.model_copy(update=more)


def test_records_and_the_instance_survive_a_restart(tmp_path: Path) -> None:
    files = DaemonFiles(tmp_path / "daemon" / "robot")
    files.save(record(1))
    files.save(record(1, attempt=2))
    files.save(record(2))
    files.drop(record(2).dataflow_id)
    files.close()
    again = DaemonFiles(tmp_path / "daemon" / "robot")
    assert again.load() == ([record(1, attempt=2)], [])
    assert again.instance == files.instance
    for path in again.directory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    again.close()


def test_second_daemon_with_the_same_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_files, "LOCK_TIMEOUT", 0.0)
    files = DaemonFiles(tmp_path / "robot")
    with pytest.raises(DaemonStateError, match="another --machine-id"):
        DaemonFiles(tmp_path / "robot")
    files.close()


def test_unreadable_record_is_renamed(tmp_path: Path) -> None:
    files = DaemonFiles(tmp_path / "robot")
    broken = files.directory / "parts" / f"{uuid.UUID(int=3)}.json"
    broken.write_text('{"dataflow_id": ')
    records, (problem,) = files.load()
    assert records == []
    assert str(broken) in problem
    assert broken.with_suffix(".unreadable").exists()
    files.close()


def test_removed_files_are_restored(tmp_path: Path) -> None:
    files = DaemonFiles(tmp_path / "robot")
    instance = files.instance
    assert not files.were_removed()
    shutil.rmtree(files.directory)
    assert files.were_removed()
    files.restore([record(1)])
    assert not files.were_removed()
    files.close()
    again = DaemonFiles(tmp_path / "robot")
    assert (again.load(), again.instance) == (([record(1)], []), instance)
    again.close()
