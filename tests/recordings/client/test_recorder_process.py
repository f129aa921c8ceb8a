"""Recorder processes of commands."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from dora_config.protocol.recorders import RecorderEnd, RecordingRequest
from dora_daemon.inspection import process
from dora_recordings.client.fleet import RecordingError
from dora_recordings.client.recorder_process import RecorderProcess
from dora_recordings.status_file import identified

REQUEST = RecordingRequest(dataflow_id="flow", path="/r.mcap")


def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> str:
    """Return the error of a recorder that prints ``output`` and ends."""
    (tmp_path / "output").write_text(output)
    words = ["sh", "-c", f"cat {tmp_path / 'output'}; exit 1"]
    monkeypatch.setattr(process, "run_module", lambda _: words)
    with pytest.raises(RecordingError) as error:
        RecorderProcess(tmp_path, REQUEST)
    return str(error.value)


def test_process_of_a_refused_recording_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = identified(end=RecorderEnd.FAILED, problem="no output matches x/*")
    found = refused(tmp_path, monkeypatch, status.model_dump_json() + "\n")
    gc.collect()  # warns of a process that may still run
    assert found == "cannot record: no output matches x/*"


def test_recorder_without_a_report_has_ended_unexpectedly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = refused(tmp_path, monkeypatch, "")
    assert found == "cannot record: the recorder ended unexpectedly (exit code 1)"
