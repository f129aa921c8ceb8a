"""Recorders come from a plug-in; without it nodes start, and requests are refused."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from dora_config import plugins
from dora_config.access import Endpoint
from dora_config.plugins import Addition, PluginError, Plugins
from dora_config.protocol.recordings import ListRecordings, RecordingStates, StopRecording
from dora_daemon.agent.events import RecorderSettled
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.side_programs import NoRecorders, SidePrograms, start_recorders


async def _started(root: Path, post: Any = None) -> SidePrograms:
    tasks, endpoint = anyio.create_task_group(), Endpoint(socket.gethostname(), 1)
    return start_recorders(tasks, root, "robot", lambda: endpoint, lambda _: True, post)


def _received(*arguments: object) -> tuple[object, ...]:
    return arguments


def test_the_recorders_of_the_plug_in_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = f"{__name__}:_received"
    recorder = Addition("dora.side_programs", "recorder", value, "dora-recordings")
    monkeypatch.setattr(
        plugins, "installed", lambda: Plugins([recorder], {"dora-recordings": [plugins.INTERFACE]})
    )
    found: Any = anyio.run(_started, tmp_path)
    assert found[1:3] == (tmp_path, "robot")


def test_without_the_plug_in_nodes_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plugins, "installed", lambda: Plugins([], {}))
    posted: list[Any] = []
    found = anyio.run(_started, tmp_path, posted.append)
    assert isinstance(found, NoRecorders)
    assert found.dataflows() == set()
    record = PartRecord.model_construct(dataflow_id="flow", spec=_Spec(recording=None))
    found.start(record, new_attempt=True)
    assert posted == [RecorderSettled("flow")]
    assert caplog.messages == []
    found.start(record.model_copy(update={"spec": _Spec(recording=3)}), new_attempt=True)
    [message] = caplog.messages
    assert "cannot record: the program `recorder` beside a dataflow is part of" in message
    assert anyio.run(found.call, ListRecordings()) == RecordingStates()
    with pytest.raises(PluginError, match="is part of the wheel dora-recordings"):
        anyio.run(found.call, StopRecording(recording=str(uuid4())))


class _Spec:
    def __init__(self, recording: object) -> None:
        self.recording = recording
