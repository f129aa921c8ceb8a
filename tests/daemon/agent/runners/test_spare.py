"""The spare runner: used, refused, stopped, killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import psutil
import pytest
from support.runner.runs import gone
from support.waiting import wait_until, wait_until_async

from dora_config.protocol.run_plan import RunPlan
from dora_daemon.agent.runners import spare as module
from dora_daemon.agent.runners.spare import SpareRunner
from dora_daemon.process_tree.reaper import LOG, RESULT
from dora_daemon.process_tree.runtime_dir import PLAN, RuntimeDir
from dora_daemon.runner.process.runners_unit import UNIT_VARIABLE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has spare runners")


def use(
    monkeypatch: pytest.MonkeyPatch, function: Callable[[SpareRunner], Awaitable[None]]
) -> None:
    monkeypatch.setenv(module.SWITCH, "1")
    monkeypatch.setattr(module, "MIN_MEMORY", 0)
    monkeypatch.setattr(module, "DELAY", 0.0)

    async def run() -> None:
        runner = SpareRunner()
        try:
            await function(runner)
        finally:
            runner.close()

    anyio.run(run)


async def ready(runner: SpareRunner) -> int:
    """Start a spare and wait until it is ready; return its pid."""
    runner.prepare()

    def look() -> bool:
        channel = runner._channel
        try:
            return channel is not None and channel.recv(16, socket.MSG_PEEK) == b"ready"
        except BlockingIOError:
            return False

    await wait_until_async(look, what="a spare runner")
    assert runner._process is not None
    return runner._process.pid


def make_directory(tmp_path: Path) -> RuntimeDir:
    """Return a runtime directory with a plan that fails at once."""
    directory = RuntimeDir.create(tmp_path / "run")
    flow = {"nodes": [{"id": "a", "path": "absent.py"}]}
    plan = RunPlan.model_validate(
        {"dataflow_id": "d", "name": None, "resolved": flow, "working_dir": str(tmp_path)}
    )
    directory.write(PLAN, plan.model_dump_json())
    return directory


def test_a_spare_becomes_the_runner_of_a_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def check(runner: SpareRunner) -> None:
        pid = await ready(runner)
        directory = make_directory(tmp_path)
        log = os.open(directory.path / LOG, os.O_WRONLY | os.O_CREAT)
        part = {"DORA_RUNNER_PART": json.dumps("d@robot")}
        descriptors = (directory.lock_descriptor, log)
        process = await runner.take(str(directory.path), part, descriptors)
        os.close(log)
        assert process is not None
        assert process.pid == pid
        seen = psutil.Process(pid)
        assert seen.cmdline()[-4:-1] == ["-m", "dora_daemon.runner", str(directory.path)]
        assert seen.environ()["DORA_RUNNER_PART"] == '"d@robot"'
        wait_until(lambda: (directory.path / RESULT).exists(), what="the result")
        assert "absent.py" in (directory.path / RESULT).read_text()
        process.kill()
        process.wait()
        os.close(directory.lock_descriptor)

    use(monkeypatch, check)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_spare_that_does_not_answer_is_not_used(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(module, "LIMIT", 0.3)

    async def check(runner: SpareRunner) -> None:
        pid = await ready(runner)
        os.kill(pid, number)
        assert await runner.take("/", {}, (1, 2)) is None
        gone(pid)
        assert await ready(runner) != pid

    use(monkeypatch, check)


def test_a_spare_is_not_used_after_an_upgrade_or_before_it_is_ready(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(library))

    async def check(runner: SpareRunner) -> None:
        pid = await ready(runner)
        (library / "new.py").touch()
        assert await runner.take("/", {}, (1, 2)) is None
        gone(pid)
        runner._start()
        assert await runner.take("/", {}, (1, 2)) is None

    use(monkeypatch, check)


def test_the_first_spare_comes_earlier_without_a_dataflow(monkeypatch: pytest.MonkeyPatch) -> None:
    delay = module.DELAY

    async def check(runner: SpareRunner) -> None:
        monkeypatch.setattr(module, "DELAY", delay)
        due = []
        for idle in (True, False):
            runner.prepare(idle=idle)
            assert runner._timer is not None
            due.append(runner._timer.when())
        assert due[1] - due[0] > 5

    use(monkeypatch, check)


def test_machines_without_a_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELAY", 0.0)

    async def check() -> None:
        for name, value, memory in ((module.SWITCH, "0", 0), (UNIT_VARIABLE, "u", 0)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(module.SWITCH, "1")
                patch.setenv(name, value)
                patch.setattr(module, "MIN_MEMORY", memory)
                runner = SpareRunner()
                runner.prepare()
                assert runner._timer is None
        monkeypatch.setenv(module.SWITCH, "1")
        monkeypatch.setattr(module, "MIN_MEMORY", 1 << 60)
        runner = SpareRunner()
        runner.prepare()
        assert runner._timer is None

    anyio.run(check)
