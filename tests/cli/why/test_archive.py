"""Archives for issue reports: contents, without secrets."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest
from support.command_line import Dora
from support.runner.histories import entry, evidence, failed, machine

from dora_cli.why.archive import FOLDER, NotAnArchive, Report, check_path, last_moment, write
from dora_config.history.entries import RunBegan, RunEnded
from dora_config.history.explain import explain
from dora_config.history.file import HistoryFile

UUID = "22222222-0000-4000-8000-000000000000"
SECRETS = ("cluster-token-value", "hunter2hunter2", "s3cr3t-of-the-shell", "pw-in-url")


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        files = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            files[member.name.removeprefix(f"{FOLDER}/")] = file.read().decode()
        return files


def test_secrets_are_removed_from_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", SECRETS[2])
    robot = machine("robot", failed(900, "camera", f"exited: {SECRETS[1]} refused"))
    known = evidence(robot)
    report = Report(
        explain(known),
        known,
        descriptor={
            "dataflow": {"nodes": [{"id": "camera", "env": {"LOGIN": "x", "DB_PASS": "short"}}]},
            "env_overrides": {"API_TOKEN": SECRETS[1]},
        },
        variables={"API_TOKEN": SECRETS[1]},
        versions={"dora": "1"},
        logs={
            "robot": [
                json.dumps({"msg": f"using {SECRETS[1]} and {SECRETS[2]}"}),
                f"https://bot:{SECRETS[3]}@host {SECRETS[0]}",
            ]
        },
        metrics={"nodes": []},
    )
    path = tmp_path / "report.tar.gz"
    write(path, report, [SECRETS[0]])
    files = unpacked(path)
    assert list(files) == [
        "dataflow.json",
        "versions.json",
        "history.json",
        "metrics.json",
        "explanation.json",
        "logs_robot.jsonl",
        "explanation.txt",
    ]
    for name, text in files.items():
        assert not [secret for secret in SECRETS if secret in text], name
        if name.endswith(".json"):
            json.loads(text)
    assert '"id": "camera"' in files["dataflow.json"]
    assert "node_failed" in files["history.json"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert "read it before you publish it" in capsys.readouterr().err


def test_logs_end_with_the_dataflow() -> None:
    robot = machine("robot", failed(900, "camera"))
    assert last_moment(evidence(robot)) == 1000.0
    assert last_moment(evidence(robot, ended=True)) == 900.0


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(NotAnArchive, match="is a directory; name the file"):
        check_path(tmp_path)
    with pytest.raises(NotAnArchive, match="does not exist; create the folder"):
        check_path(tmp_path / "missing" / "report.tar.gz")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAnArchive, match="is not a regular file and is not replaced"):
        check_path(tmp_path / "pipe")


def test_the_archive_of_a_local_run(dora: Dora, tmp_path: Path, hello: Path) -> None:
    file = HistoryFile(tmp_path / "out" / UUID / "history.jsonl")
    for one in (
        entry(1000.0, RunBegan(nodes=("camera", "plot"), pid=1, version="1.2")),
        entry(2000.0, RunEnded(ok=True)),
    ):
        file.append(one)
    stamps = ("1970-01-01T00:00:10.000Z", "1970-01-01T00:33:19.000Z")
    lines = [{"ts": ts, "level": "info", "node": "plot", "msg": f"at {ts}"} for ts in stamps]
    log = tmp_path / "out" / UUID / "log_plot.jsonl"
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    shown = dora("why", "--local", "--archive", "report.tar.gz")
    assert shown.code == 0
    assert shown.out.startswith(f"Dataflow {UUID}: Finished\n")
    files = unpacked(tmp_path / "report.tar.gz")
    assert json.loads(files["dataflow.json"])["file"] == hello.name
    assert json.loads(files["versions.json"])["runners"] == ["1.2"]
    assert [json.loads(line)["ts"] for line in files["logs.jsonl"].splitlines()] == [stamps[1]]
    assert dora("why", "--local", "--archive", ".").code == 1
