"""The file in which a daemon writes whether its coordinator is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dora_daemon.process_tree.daemon_entry import DaemonEntry, boot_time, daemons, remove
from dora_daemon.process_tree.runtime_dir import own_identity


def entry(**changes: object) -> DaemonEntry:
    pid, started, boot = own_identity()
    mine = DaemonEntry(
        "one", "robot", pid, started, boot, "10.0.0.1:6013", False, boot_time() - 180
    )
    return replace(mine, **changes)  # type: ignore[arg-type]


def test_living_daemons_are_found(tmp_path: Path) -> None:
    root = tmp_path / "run"
    assert list(daemons(root)) == []
    entry().write(root)
    entry(instance="dead", start_time=1).write(root)
    entry(instance="rebooted", boot_id="before").write(root)
    (root / "daemon-broken.json").write_text("{")
    (root / "daemon-other.json").write_text('{"of": "another version"}')
    (found,) = daemons(root)
    assert found == replace(entry(), since=found.since)
    assert 180 <= found.seconds() < 240
    remove(root, "one")
    remove(root, "one")
    assert list(daemons(root)) == []
