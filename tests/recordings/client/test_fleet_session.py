"""The end of a recording while the coordinator is away."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import CoordinatorUnreachable
from dora_cli.errors import CommandFailed
from dora_config.access import Endpoint
from dora_config.protocol.recorders import RecordingPlan
from dora_config.protocol.recordings import (
    ListRecordings,
    MachineReply,
    RecorderReplies,
    RecordingState,
    RecordingStates,
)
from dora_recordings.client import starting
from dora_recordings.client.starting import FleetSession, conclude

ID = "01a20e4b-f5a3-4858-99fe-d510d04b9561"


def away(*_: object) -> CoordinatorClient:
    raise CoordinatorUnreachable("cannot connect")


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FleetSession:
    """A session that one machine has reported to."""
    monkeypatch.setattr(starting, "CoordinatorClient", away)
    session = FleetSession(Endpoint("127.0.0.1", 1), RecordingPlan(recording=ID))
    state = RecordingState(recording=ID, dataflow_id="flow", phase="recording")
    reply = MachineReply(daemon="robot", reply=RecordingStates(recordings=(state,)))
    client = Mock(request=lambda *_: RecorderReplies(replies=(reply,)))
    session._update(client, ListRecordings())
    return session


@pytest.mark.parametrize(
    ("target", "error"), [(None, CommandFailed), (Path("all.mcap"), CoordinatorUnreachable)]
)
def test_a_recording_that_was_not_stopped_is_reported(
    session: FleetSession,
    capsys: pytest.CaptureFixture[str],
    target: Path | None,
    error: type[Exception],
) -> None:
    session.finish()
    with pytest.raises(error):
        conclude(away, session, target)
    out, err = capsys.readouterr()
    assert "machines may still record; end it with `dora recording stop 01a20e4b`" in err
    assert "robot: cannot connect: it may still record" in err
    assert out == f"fetch it with: dora recording fetch 01a20e4b -o {target or 'FILE'}\n"
