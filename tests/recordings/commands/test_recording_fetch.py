"""`dora recording fetch --remove`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from dora_cli.coordinator.recordings import FleetRecording
from dora_cli.errors import CommandFailed
from dora_recordings.client import fetching, fleet
from dora_recordings.commands import recording as command


@pytest.mark.parametrize("intact", [True, False])
def test_damage_keeps_the_recording_on_the_machines_and_lost_messages_do_not(
    monkeypatch: pytest.MonkeyPatch, intact: bool
) -> None:
    def merge(*_: object) -> tuple[bool, bool]:
        done.append("merged")
        return False, intact

    done: list[str] = []
    recording = FleetRecording("id")
    monkeypatch.setattr(command, "connect", lambda *_: nullcontext())
    monkeypatch.setattr(fleet, "find", lambda *_: (recording, None))
    monkeypatch.setattr(fetching, "fetch", lambda *_, allow_missing: [])
    monkeypatch.setattr(fetching, "merge_fetched", merge)
    monkeypatch.setattr(fetching, "remove_from_machines", lambda *_: done.append("removed"))
    removed = ["merged", "removed"] if intact else ["merged"]
    for remove, expected in ((True, removed), (False, ["merged"])):
        with pytest.raises(CommandFailed):
            command.fetch(recording="id", target=Path("all.mcap"), remove=remove)
        assert done == expected
        done.clear()
