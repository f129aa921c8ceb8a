"""Builds that cannot begin, cannot be recorded, or are cancelled."""

from __future__ import annotations

import errno
import threading
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
import pytest
from support.simulation.fleets import dataflow
from support.waiting import PATIENCE, wait_until_async

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedNode
from dora_config.protocol.builds import (
    BuildEnded,
    BuildEvents,
    BuildEventsAck,
    BuildPart,
    CancelBuild,
)
from dora_config.protocol.code import CodeSet
from dora_config.protocol.daemon import DaemonMessage
from dora_config.protocol.dataflow import DataflowSpec
from dora_daemon.agent.builds.files import BuildFiles
from dora_daemon.agent.builds.processes import BuildProcesses
from dora_daemon.agent.node_paths import LocalMachine
from dora_daemon.code.delivery import CodeDelivery, CodeNotDelivered

ONE, TWO, THREE = (f"01a20e4b-f5a3-4858-99fe-d510d04b956{number}" for number in range(3))
SPEC = dataflow(camera="robot").model_copy(update={"workspace": "shared"})
NEEDS_A_BUILD = DataflowSpec(
    resolved=ResolvedDataflow(nodes=(ResolvedNode(id="n", path="n.py", build=("true",)),))
)

PRINTS_LINES = DataflowSpec(
    resolved=ResolvedDataflow(nodes=(ResolvedNode(id="n", path="n.py", build=("seq 1 300",)),))
)


class Code:
    """Delivers the code of nodes; the first delivery waits if it is held."""

    def __init__(self, *, held: bool = False, problem: str | None = None) -> None:
        self.begun = 0
        self._held = held
        self._problem = problem

    async def deliver(
        self, spec: DataflowSpec, directory: Path, running: Collection[str] = ()
    ) -> dict[str, CodeSet]:
        self.begun += 1
        if self._problem is not None:
            raise CodeNotDelivered(self._problem)
        if self._held and self.begun == 1:
            await anyio.sleep_forever()
        return {}


@dataclass
class Daemon:
    """The builds of a daemon whose files are below ``root``."""

    root: Path
    code: Code = field(default_factory=Code)
    sent: list[DaemonMessage] = field(default_factory=list)

    def play(self, work: Callable[[BuildProcesses], Awaitable[object]]) -> None:
        machine = LocalMachine(self.root, "boot", code=cast("CodeDelivery", self.code))

        async def run() -> None:
            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    files = BuildFiles(self.root / "builds")
                    builds = BuildProcesses(
                        tasks, self.root / "run", lambda: machine, files, self.sent.append, tuple
                    )
                    await work(builds)

        anyio.run(run)

    def built(self, spec: DataflowSpec) -> BuildEnded:
        """Return the result of one build."""

        async def work(builds: BuildProcesses) -> None:
            builds.handle(BuildPart(build_id=ONE, spec=spec))

        self.play(work)
        (ended,) = self.sent
        assert isinstance(ended, BuildEnded)
        return ended


def test_a_build_that_cannot_be_recorded_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "one.json")

    monkeypatch.setattr(BuildFiles, "save", full)
    problem = "cannot record the build: one.json: No space left on device"
    assert Daemon(tmp_path).built(SPEC) == BuildEnded(build_id=ONE, problem=problem)


def test_a_build_without_a_runtime_directory_fails(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    ended = Daemon(tmp_path).built(NEEDS_A_BUILD)
    assert ended.problem is not None
    assert f"cannot use the runtime directory {tmp_path}/run" in ended.problem
    assert "XDG_STATE_HOME" in ended.problem


def test_long_output_of_a_build_does_not_load_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    threads: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        threads.append(thread)
        real_start(thread)

    real_start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    daemon = Daemon(tmp_path)

    async def work(builds: BuildProcesses) -> None:
        builds.handle(BuildPart(build_id=ONE, spec=PRINTS_LINES))

        def ended() -> bool:
            builds.handle(BuildEventsAck(build_id=ONE))
            return any(isinstance(message, BuildEnded) for message in daemon.sent)

        await wait_until_async(ended, what="the end of the build")

    daemon.play(work)
    texts = [
        event.text for one in daemon.sent if isinstance(one, BuildEvents) for event in one.events
    ]
    printed = [text for text in texts if text.isdigit()]
    assert printed == [str(number) for number in range(1, 301)]
    assert len(threads) < 20


def test_code_that_does_not_arrive_fails_the_build(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, Code(problem="cannot bring the code: disk full"))
    problem = "cannot bring the code: disk full"
    assert daemon.built(SPEC) == BuildEnded(build_id=ONE, problem=problem)


@pytest.mark.parametrize("all_of_them", [False, True], ids=["one", "all"])
def test_a_cancelled_build_is_not_answered_and_frees_its_folder(
    tmp_path: Path, all_of_them: bool
) -> None:
    daemon = Daemon(tmp_path, Code(held=True))

    async def work(builds: BuildProcesses) -> None:
        builds.handle(BuildPart(build_id=ONE, spec=SPEC))
        await wait_until_async(lambda: daemon.code.begun == 1, what="the first build")
        if all_of_them:
            builds.cancel_all()
        else:
            builds.handle(CancelBuild(build_id=ONE))
        builds.handle(BuildPart(build_id=TWO, spec=SPEC))

    daemon.play(work)
    assert daemon.sent == [BuildEnded(build_id=TWO)]


def test_builds_in_one_folder_run_one_after_another(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, Code(held=True))

    async def work(builds: BuildProcesses) -> None:
        builds.handle(BuildPart(build_id=ONE, spec=SPEC))
        await wait_until_async(lambda: daemon.code.begun == 1, what="the first build")
        builds.handle(BuildPart(build_id=TWO, spec=SPEC))
        other = SPEC.model_copy(update={"workspace": "another"})
        builds.handle(BuildPart(build_id=THREE, spec=other))
        await wait_until_async(lambda: daemon.sent, what="the build in the other folder")
        assert daemon.code.begun == 2, "the second build waits"
        builds.handle(CancelBuild(build_id=ONE))

    daemon.play(work)
    assert daemon.sent == [BuildEnded(build_id=THREE), BuildEnded(build_id=TWO)]
