"""Services of systemd on machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from dora_cluster.connection import FinishedCommand
from dora_cluster.decisions.preflight import MachineFacts, NotReady
from dora_cluster.machines.daemon_service import DaemonService, SystemdService
from dora_cluster.machines.remote_machine import RemoteMachine


class WithoutPolkit:
    """Connection to a machine on which only root may enable lingering."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    def write(self, path: str, _content: bytes, *, mode: int) -> None:
        self.files.add(path)

    def run(self, argv: Sequence[str]) -> FinishedCommand:
        match list(argv):
            case ["loginctl", "show-user", *_]:
                return FinishedCommand(0, "no\n", "")
            case ["rm", "-f", path]:
                self.files.discard(path)
                return FinishedCommand(0, "", "")
            case _:
                return FinishedCommand(1, "", "Access denied")


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


class FakeService(DaemonService):
    """Files in memory; ``events`` has what takes effect."""

    def __init__(self) -> None:
        remote = SimpleNamespace(
            service="dora-daemon-a", machine=SimpleNamespace(id="a"), connection=None
        )
        facts = SimpleNamespace(home="/home/ubuntu", user="ubuntu", uid=1000)
        super().__init__(cast(RemoteMachine, remote), cast(MachineFacts, facts), user=False)
        self.files: dict[str, bytes | None] = {}
        self.events: list[str] = []

    def wanted_files(self, dora: str) -> dict[str, bytes | None]:
        return {self.unit: dora.encode()}

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)

    def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        self.files[path] = content

    def state(self) -> str:
        return "active"

    def enable(self) -> None:
        self.events.append("enable")

    def _stage(self, files: Mapping[str, bytes | None]) -> None:
        self.events.append("stage")

    def _commit(self, action: str, files: Mapping[str, bytes | None]) -> None:
        self.files |= files
        self.events.append(action)


def test_a_new_key_is_allowed_only_just_before_a_restart() -> None:
    """Else a machine whose daemon continues is without a key, and another may enrol as it."""
    service = FakeService()

    def install(*, stale: bool) -> str:
        return service.install(
            "dora", "token", stale=stale, before_restart=lambda: service.events.append("allow")
        )

    assert install(stale=False) == "OK"
    assert service.events == ["stage", "allow", "restart"]
    service.events.clear()
    assert install(stale=False) == "runs already"
    assert service.events == ["enable"]
    assert install(stale=True) == "OK"
    assert service.events == ["enable", "stage", "allow", "restart"]
