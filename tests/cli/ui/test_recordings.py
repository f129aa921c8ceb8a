"""Downloads of recordings."""

from __future__ import annotations

import anyio
import pytest
from starlette.requests import Request

from dora_cli.coordinator.errors import RequestFailed
from dora_cli.ui.recordings import Recordings
from dora_config.protocol.control import ControlAnswer, ControlRequest
from dora_config.protocol.recordings.fleet import MachineReply, RecorderReplies, RecordingData

PARAMETERS = {
    "recording": "01a20e4b-f5a3-4858-99fe-d510d04b9561",
    "machine": "robot",
    "file": "robot-0.mcap",
}


class FakeBackend:
    """A machine that sends malformed data."""

    async def request(self, request: ControlRequest) -> ControlAnswer:
        reply = MachineReply(daemon="robot", reply=RecordingData(data="YQ"))
        return RecorderReplies(replies=(reply,))


def test_malformed_data_of_a_machine_is_an_error() -> None:
    request = Request({"type": "http", "path_params": PARAMETERS})
    with pytest.raises(RequestFailed, match=r"robot: robot-0\.mcap: malformed data"):
        anyio.run(Recordings(FakeBackend()).download, request)  # type: ignore[arg-type]
