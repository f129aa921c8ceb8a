"""Settings of Zenoh sessions."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import zenoh
from daemon.link import certificates
from daemon.link.certificates import Authority

from dora_daemon.link.errors import CannotConnect
from dora_daemon.link.io.session import LinkSession, _open


class Later:
    """In place of the module datetime: it is a year later."""

    UTC = datetime.UTC
    timedelta = datetime.timedelta

    class datetime:
        @staticmethod
        def now(zone: datetime.tzinfo) -> datetime.datetime:
            return datetime.datetime.now(zone) + datetime.timedelta(days=365)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [("[fd00::1]:7450", "tls/fd00::1:7450"), ("10.0.0.7:7450", "tls/10.0.0.7:7450")],
)
def test_an_address_is_dialled_without_brackets(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, expected: str
) -> None:
    """With them, Zenoh (1.10) fails with "invalid dns name", but only over TLS."""
    dialled: list[str] = []

    def refuse(config: Any) -> None:
        dialled.extend(json.loads(config.get_json("connect/endpoints")))
        raise zenoh.ZError("no")

    monkeypatch.setattr(zenoh, "open", refuse)
    with pytest.raises(zenoh.ZError):
        _open(listen=None, dial=endpoint, credentials=Path("credentials"))
    assert dialled == [expected]


@pytest.mark.parametrize("expired", ["theirs", "ours"])
def test_a_certificate_of_another_time_is_explained_by_the_clock(
    home: Path, monkeypatch: pytest.MonkeyPatch, expired: str
) -> None:
    """Of an earlier version: those had an end."""
    authority = Authority()
    folders = {}
    for name in ("theirs", "ours"):
        with monkeypatch.context() as patch:
            if name == expired:
                patch.setattr(certificates, "datetime", Later)
            folders[name] = authority.sign(home / name, name)
    listener = LinkSession.listen("127.0.0.1", list(range(7447, 7547)), folders["theirs"])
    try:
        with pytest.raises(CannotConnect, match="wrong clock"):
            LinkSession.dial(listener.endpoint, folders["ours"])
    finally:
        listener.close()
