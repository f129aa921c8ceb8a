"""Log files of a folder: selection of dataflows and nodes, and following."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dora_cli.logs import files
from dora_cli.logs.files import LocalLog, NoSuchRun, choose_run
from dora_cli.logs.log_lines import EntryPrinter
from dora_config.history.entries import HistoryEntry, RunBegan
from dora_config.history.file import HistoryFile
from dora_config.ids import log_file_name
from dora_config.protocol.dataflow import LogFilter

FLOW = "22222222-0000-4000-8000-000000000000"
BEGAN = RunBegan(name="arm", nodes=("a",), pid=1, version="1")


def log(base: Path, name: str, *messages: str) -> Path:
    path = base / "out" / FLOW / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"ts": "2026-08-21T09:30:00Z", "level": "info", "msg": text} for text in messages]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def messages(logs: LocalLog) -> list[str]:
    return [json.loads(line)["msg"] for line in logs.new_lines()]


def chosen(base: Path, wanted: str | None) -> str:
    return choose_run(base, wanted, "log_*.jsonl*", "logs").dataflow


def test_each_entry_is_read_once(tmp_path: Path) -> None:
    node = "n" * 300  # its file name is shortened
    name = log_file_name(node)
    log(tmp_path, f"{name}.1", "one")
    path = log(tmp_path, name, "two")
    log(tmp_path, "log_other.jsonl", "of another node")
    logs = LocalLog(tmp_path, FLOW, LogFilter(), node)
    assert messages(logs) == ["one", "two"]
    with path.open("a") as file:
        file.write('{"msg": "three"}\n')
    assert messages(logs) == ["three"]
    assert messages(logs) == []
    logs.close()


def test_nodes_that_come_later_are_read(tmp_path: Path) -> None:
    log(tmp_path, "log_a.jsonl", "one")
    logs = LocalLog(tmp_path, FLOW, LogFilter())
    assert messages(logs) == ["one"]
    log(tmp_path, "log_b.jsonl.1", "two")
    path = log(tmp_path, "log_b.jsonl", "three")
    assert messages(logs) == ["two", "three"]
    with path.open("a") as file:
        file.write('{"msg": "torn\n{"msg": "four"}\n')
    assert messages(logs) == ["four"]
    logs.close()


def test_unknown_dataflows_and_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoSuchRun, match="no logs of dataflows in"):
        chosen(tmp_path, None)
    log(tmp_path, "log_a.jsonl")
    assert chosen(tmp_path, "222") == FLOW
    with pytest.raises(NoSuchRun, match=f'no logs of "333" here.*\n  {FLOW}'):
        chosen(tmp_path, "333")
    monkeypatch.chdir(tmp_path)
    printer = EntryPrinter("pretty")
    with pytest.raises(NoSuchRun, match='no log file of node "b"; nodes with logs: a'):
        files.show(None, "b", LogFilter(), printer, follow=False)


def test_a_dataflow_is_found_by_the_name_of_its_start(tmp_path: Path) -> None:
    folder = log(tmp_path, "log_a.jsonl").parent
    HistoryFile(folder / "history_robot.jsonl").append(HistoryEntry(at=1.0, event=BEGAN))
    assert chosen(tmp_path, "arm") == FLOW
    with pytest.raises(NoSuchRun, match=rf'no logs of "leg" here.*\n  {FLOW} \(arm\)'):
        chosen(tmp_path, "leg")


def test_a_file_may_be_renamed_while_dataflows_are_listed(tmp_path: Path) -> None:
    log(tmp_path, "log_a.jsonl.1", "one")
    (tmp_path / "out" / FLOW / "log_a.jsonl").symlink_to("renamed")
    assert chosen(tmp_path, None) == FLOW
