"""A coordinator whose store cannot be written ends, and those who asked for something hear why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from support.fleet_simulation import COORDINATOR, DAEMON, dataflow

from dora_config.protocol.control import StartDataflow
from dora_config.protocol.daemon import Register
from dora_coordinator.authority import Authority
from dora_coordinator.commands import DeleteRecord, SaveRecord
from dora_coordinator.service import Service
from dora_coordinator.settings import Settings
from dora_coordinator.store import MemoryStore, StoreError


class FullStore(MemoryStore):
    def apply(self, changes: Sequence[SaveRecord | DeleteRecord]) -> None:
        raise StoreError("the disk is full")


def test_nothing_is_sent_to_daemons_and_the_client_is_told(tmp_path: Path) -> None:
    texts: dict[str, list[str]] = {"daemon": [], "client": []}

    async def play() -> None:
        authority = Authority(tmp_path / "authority")
        service = Service(Settings(), COORDINATOR, FullStore(), authority)
        daemon, client = service.connect("10.0.0.2:1"), service.connect("10.0.0.1:1")
        register = Register(party=DAEMON, instance="i", incarnation="1", machine_id="robot")
        service.registered(daemon, register)
        service.asked(client, 1, StartDataflow(spec=dataflow(camera="robot")))
        with pytest.raises(StoreError, match="the disk is full"), anyio.fail_after(10):
            await service.run()
        for name, connection in (("daemon", daemon), ("client", client)):

            async def note(text: str, name: str = name) -> None:
                texts[name].append(text)

            connection.hang_up()
            await connection.write(note)

    anyio.run(play)
    (failure,) = texts["client"]
    assert "the disk is full" in failure
    assert not any("prepare_part" in text for text in texts["daemon"])
