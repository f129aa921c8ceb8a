"""Services of systemd on machines."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from dora_cli.cluster.decisions.preflight import MachineFacts, NotReady
from dora_cli.cluster.machines.remote_machine import RemoteMachine
from dora_cli.cluster.machines.systemd import SystemdService
from dora_cli.ssh import Finished


class WithoutPolkit:
    """Connection to a machine on which only root may enable lingering."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    def write(self, path: str, _content: bytes, *, mode: int) -> None:
        self.files.add(path)

    def run(self, argv: Sequence[str]) -> Finished:
        match list(argv):
            case ["loginctl", "show-user", *_]:
                return Finished(0, "no\n", "")
            case ["rm", "-f", path]:
                self.files.discard(path)
                return Finished(0, "", "")
            case _:
                return Finished(1, "", "Access denied")


def test_lingering_that_root_must_enable_is_not_marked_as_enabled_here() -> None:
    """Else the end of the service would disable it."""
    connection = WithoutPolkit()
    remote = SimpleNamespace(connection=connection, service="dora-daemon-a")
    facts = SimpleNamespace(home="/home/ubuntu", user="a", uid=1000)
    service = SystemdService(
        cast(RemoteMachine, remote),
        cast(MachineFacts, facts),
        user=True,
        secrets="/etc/dora",
        name="a-",
    )
    with pytest.raises(NotReady, match="as root: loginctl enable-linger a"):
        service._enable_linger()
    assert connection.files == set()
