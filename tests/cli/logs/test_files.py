"""Log files of a folder: selection of dataflows and nodes, and following."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dora_cli.logs import local
from dora_cli.logs.files import LogFiles, NoSuchLogs, choose_dataflow
from dora_cli.logs.log_lines import LogFilter, LogFormat
from dora_cli.logs.printer import EntryPrinter
from dora_config.history.entries import HistoryEntry, RunBegan
from dora_config.history.file import HistoryFile
from dora_config.ids import log_file_name

FLOW = "22222222-0000-4000-8000-000000000000"
BEGAN = RunBegan(name="arm", nodes=("a",), pid=1, version="1")


def log(base: Path, name: str, *messages: str) -> Path:
    path = base / "out" / FLOW / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"ts": "2026-08-21T09:30:00Z", "level": "info", "msg": text} for text in messages]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_each_entry_is_read_once(tmp_path: Path) -> None:
    node = "n" * 300  # its file name is shortened
    name = log_file_name(node)
    log(tmp_path, f"{name}.1", "one")
    path = log(tmp_path, name, "two")
    log(tmp_path, "log_other.jsonl", "of another node")
    logs = LogFiles(tmp_path, FLOW, node)
    assert [entry.msg for entry in logs.new_entries()] == ["one", "two"]
    with path.open("a") as file:
        file.write('{"msg": "three"}\n')
    assert [entry.msg for entry in logs.new_entries()] == ["three"]
    assert list(logs.new_entries()) == []
    logs.close()


def test_nodes_that_come_later_are_read(tmp_path: Path) -> None:
    log(tmp_path, "log_a.jsonl", "one")
    logs = LogFiles(tmp_path, FLOW)
    assert [entry.msg for entry in logs.new_entries()] == ["one"]
    log(tmp_path, "log_b.jsonl.1", "two")
    path = log(tmp_path, "log_b.jsonl", "three")
    assert [entry.msg for entry in logs.new_entries()] == ["two", "three"]
    with path.open("a") as file:
        file.write('{"msg": "torn\n{"msg": "four"}\n')
    assert [entry.msg for entry in logs.new_entries()] == ["four"]
    logs.close()


def test_unknown_dataflows_and_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoSuchLogs, match="no logs of dataflows in"):
        choose_dataflow(tmp_path, None)
    log(tmp_path, "log_a.jsonl")
    assert choose_dataflow(tmp_path, "222") == FLOW
    with pytest.raises(NoSuchLogs, match=f"no logs of 333 here.*\n  {FLOW}"):
        choose_dataflow(tmp_path, "333")
    monkeypatch.chdir(tmp_path)
    printer = EntryPrinter(LogFilter(), LogFormat.PRETTY)
    with pytest.raises(NoSuchLogs, match='no log file of node "b"; nodes with logs: a'):
        local.show(None, "b", None, printer, follow=False)


def test_a_dataflow_is_found_by_the_name_of_its_start(tmp_path: Path) -> None:
    folder = log(tmp_path, "log_a.jsonl").parent
    HistoryFile(folder / "history_robot.jsonl").append(HistoryEntry(at=1.0, event=BEGAN))
    assert choose_dataflow(tmp_path, "arm") == FLOW
    with pytest.raises(NoSuchLogs, match=rf"no logs of leg here.*\n  {FLOW} \(arm\)"):
        choose_dataflow(tmp_path, "leg")


def test_a_file_may_be_renamed_while_dataflows_are_listed(tmp_path: Path) -> None:
    log(tmp_path, "log_a.jsonl.1", "one")
    (tmp_path / "out" / FLOW / "log_a.jsonl").symlink_to("renamed")
    assert choose_dataflow(tmp_path, None) == FLOW
