"""`dora cluster rotate-token` when the connection is lost after the rotation."""

from __future__ import annotations

import pytest
from support.command_line import Dora

from dora_cli.coordinator import client
from dora_cli.coordinator.errors import CoordinatorLost
from dora_config.access import Endpoint
from dora_config.protocol.control import RotateToken, TokenRotated


class Coordinator:
    """Instead of the connection to a coordinator that ends after its first answer."""

    endpoint = Endpoint("127.0.0.1", 6013)

    def __enter__(self) -> Coordinator:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def request(self, request: object) -> TokenRotated:
        if isinstance(request, RotateToken):
            return TokenRotated(token="new", daemons=("robot",))
        raise CoordinatorLost("the connection was lost")


def test_a_rotation_is_printed_before_the_connection_is_lost(
    dora: Dora, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CoordinatorClient", lambda _: Coordinator())
    shown = dora("cluster", "rotate-token")
    assert shown.code == 1
    assert shown.out == "New token sent to 1 connected daemon\nThe old token expires after 24h\n"
    assert "the connection was lost" in shown.err
