"""Data of recorded files in messages."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dora_config.protocol.recordings.fleet import RecorderAnswered, RecordingData


def test_any_bytes_are_sent() -> None:
    sent = RecorderAnswered(call="1", reply=RecordingData(data=bytes(range(256))))
    assert RecorderAnswered.model_validate_json(sent.model_dump_json()) == sent
    assert RecorderAnswered.model_validate(sent.model_dump(mode="json")).call == "1"


@pytest.mark.parametrize("data", ["Yé==", "YW!jZA=="])
def test_malformed_data_is_refused(data: str) -> None:
    with pytest.raises(ValidationError):
        RecordingData.model_validate_json(f'{{"data": "{data}"}}')
