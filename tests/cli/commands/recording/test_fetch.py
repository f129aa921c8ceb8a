"""`dora record fetch --remove`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from dora_cli.commands.recording import fetch as command
from dora_cli.errors import CommandFailed
from dora_cli.recordings import fetching, fleet


def test_lost_messages_do_not_keep_the_recording_on_the_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    recording = fleet.FleetRecording("id")
    monkeypatch.setattr(command, "connect", lambda *_: nullcontext())
    monkeypatch.setattr(fleet, "find", lambda *_: (recording, None))
    monkeypatch.setattr(fetching, "fetch", lambda *_, allow_missing: [])
    monkeypatch.setattr(fetching, "merge_fetched", lambda *_: done.append("merged"))
    monkeypatch.setattr(fetching, "remove_from_machines", lambda *_: done.append("removed"))
    for remove, expected in ((True, ["merged", "removed"]), (False, ["merged"])):
        with pytest.raises(CommandFailed):
            command.main("id", Path("all.mcap"), remove=remove)
        assert done == expected
        done.clear()
