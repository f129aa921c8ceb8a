"""What Zenoh is told when a session is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import zenoh

from dora_daemon.link.io.session import _open


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [("[fd00::1]:7450", "tls/fd00::1:7450"), ("10.0.0.7:7450", "tls/10.0.0.7:7450")],
)
def test_an_address_is_dialled_without_brackets(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, told: str
) -> None:
    """With them, Zenoh (1.10) says "invalid dns name", but only over TLS."""
    dialled: list[str] = []

    def refuse(config: Any) -> None:
        dialled.extend(json.loads(config.get_json("connect/endpoints")))
        raise zenoh.ZError("no")

    monkeypatch.setattr(zenoh, "open", refuse)
    with pytest.raises(zenoh.ZError):
        _open(listen=None, dial=endpoint, credentials=Path("credentials"))
    assert dialled == [told]
