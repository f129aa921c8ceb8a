"""Recordings as the machines of a cluster report them."""

from __future__ import annotations

import pytest

from dora_cli.coordinator.recordings import FleetRecording, collect
from dora_config.protocol.recordings import (
    MachineReply,
    RecorderReplies,
    RecordingSize,
    RecordingState,
    RecordingStates,
)
from dora_recordings.client.fleet import RecordingError, choose

IDS = [f"{digit}1a20e4b-f5a3-4858-99fe-d510d04b9561" for digit in "abb"]
IDS[2] = IDS[2].replace("20", "30")


def state(number: int, name: str | None, **values: object) -> RecordingState:
    facts: dict[str, object] = {
        "recording": IDS[number],
        "dataflow_id": f"uuid{number}",
        "name": name,
    }
    facts |= {"phase": "ended", "started": float(number)}
    return RecordingState.model_validate(facts | values)


def recordings(replies: dict[str, list[RecordingState]]) -> list[FleetRecording]:
    return collect(
        RecorderReplies(
            replies=tuple(
                MachineReply(daemon=daemon, reply=RecordingStates(recordings=tuple(states)))
                for daemon, states in replies.items()
            )
        )
    )


def test_states_of_one_recording_are_combined() -> None:
    ended = state(0, "patrol", recorded={"a/b": 3}, lost={"a/b": 1}, machines=("robot", "attic"))
    active = state(0, "patrol", phase="recording", recorded={"a/b": 2}, problems=("killed",))
    (one,) = recordings({"robot": [ended], "station": [active]})
    assert one.phase == "recording"
    assert one.machines == {"robot", "station", "attic"}
    assert (one.recorded, one.lost) == ({"a/b": 5}, {"a/b": 1})
    assert one.problems == ["station: killed"]


def test_a_recording_is_chosen_by_id_dataflow_or_age() -> None:
    found = recordings({"robot": [state(2, "patrol"), state(0, "patrol"), state(1, None)]})
    assert choose(found, None).recording == IDS[2]
    assert choose(found, "a1").recording == IDS[0]
    assert choose(found, "patrol").recording == IDS[2]
    assert choose(found, "uuid1").recording == IDS[1]
    with pytest.raises(RecordingError, match='"b1" is the start of 2 ids'):
        choose(found, "b1")
    with pytest.raises(RecordingError, match=r'no recording "x"; they have: a1a20e4b \(patrol\)'):
        choose(found, "x")
    with pytest.raises(RecordingError, match="no recording; they have: none"):
        choose([], None)


def test_the_name_of_a_dataflow_may_be_the_start_of_another_id() -> None:
    found = recordings({"robot": [state(0, "b"), state(1, "patrol")]})
    assert choose(found, "b").recording == IDS[0]


def test_other_replies_are_ignored() -> None:
    reply = MachineReply(daemon="robot", reply=RecordingSize(size=0))
    assert collect(RecorderReplies(replies=(reply,))) == []
