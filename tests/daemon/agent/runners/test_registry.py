"""Runners of one part that follow each other."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest
from support.simulation.fleets import dataflow
from support.waiting import wait_until_async

from dora_daemon.agent.credentials import Credentials
from dora_daemon.agent.events import RunnerEnded, RunnerNotice
from dora_daemon.agent.linking import LinkSetup, Listen
from dora_daemon.agent.node_paths import LocalMachine
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.runners import client
from dora_daemon.agent.runners.registry import RunnerRegistry
from dora_daemon.process_tree.reaper import OWNER
from dora_daemon.process_tree.runtime_dir import RuntimeDir


def test_a_runner_starts_after_the_former_one_was_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clean-up kills by the mark, which both have, if the directory was removed."""
    steps: list[str] = []
    events: list[RunnerNotice] = []
    former = RuntimeDir.create(tmp_path)
    former.write(OWNER, "token")
    monkeypatch.setattr(client, "kill_marked", lambda mark: steps.append("kill"))

    def create(root: Path) -> RuntimeDir:
        steps.append("create")
        raise OSError(28, "No space left on device")

    async def scenario() -> None:
        spec = dataflow(camera="robot")
        first = PartRecord(
            dataflow_id="d", attempt=1, spec=spec, machine="robot",
            runtime_dir=str(former.path), runtime_token="token",
        )  # fmt: skip
        async with anyio.create_task_group() as tasks:
            links = LinkSetup(Listen("127.0.0.1", plain=True), "", Credentials(tmp_path / "own"))
            machine = LocalMachine(tmp_path, "boot")
            registry = RunnerRegistry(
                tasks, tmp_path, lambda: machine, events.append, lambda: None, links
            )
            registry.adopt(first)
            monkeypatch.setattr(RuntimeDir, "create", create)
            registry.start(first.model_copy(update={"attempt": 2}))
            await wait_until_async(lambda: steps, what="the start")
            (former.path / OWNER).unlink()
            await wait_until_async(lambda: events, what="the failed start")

    anyio.run(scenario)
    os.close(former.lock_descriptor)
    assert steps == ["kill", "kill", "create"]
    (event,) = events
    assert isinstance(event, RunnerEnded)
