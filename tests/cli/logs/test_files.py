"""Log files of a folder: selection of dataflows and nodes, and following."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dora_cli.logs.files import Follower, NoSuchLogs, choose_dataflow, node_logs, select_nodes
from dora_config.ids import log_file_name

FLOW = "22222222-0000-4000-8000-000000000000"


def log(base: Path, name: str, *messages: str) -> Path:
    path = base / "out" / FLOW / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"ts": "2026-08-21T09:30:00Z", "level": "info", "msg": text} for text in messages]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_a_follower_returns_each_entry_once(tmp_path: Path) -> None:
    node = "n" * 300  # its file name is shortened
    name = log_file_name(node)
    log(tmp_path, f"{name}.1", "one")
    path = log(tmp_path, name, "two")
    follower = Follower(tmp_path, FLOW, node)
    assert [entry.msg for entry in follower.rotated_entries()] == ["one"]
    assert [entry.msg for entry in follower.new_entries()] == ["two"]
    with path.open("a") as file:
        file.write('{"msg": "three"}\n')
    assert [entry.msg for entry in follower.new_entries()] == ["three"]
    assert follower.new_entries() == []
    follower.close()


def test_parts_are_ordered_oldest_first(tmp_path: Path) -> None:
    for name in ("log_a.jsonl", "log_a.jsonl.10", "log_a.jsonl.2"):
        log(tmp_path, name)
    (logs,) = node_logs(tmp_path, FLOW)
    assert [path.name for path in logs.parts] == ["log_a.jsonl.10", "log_a.jsonl.2", "log_a.jsonl"]


def test_unknown_dataflows_and_nodes(tmp_path: Path) -> None:
    with pytest.raises(NoSuchLogs, match="no logs of dataflows in"):
        choose_dataflow(tmp_path, None)
    log(tmp_path, "log_a.jsonl")
    assert choose_dataflow(tmp_path, "222") == FLOW
    with pytest.raises(NoSuchLogs, match=f"no logs of 333 here.*\n  {FLOW}"):
        choose_dataflow(tmp_path, "333")
    with pytest.raises(NoSuchLogs, match='no log file of node "b"; nodes with logs: a'):
        select_nodes(node_logs(tmp_path, FLOW), "b")
