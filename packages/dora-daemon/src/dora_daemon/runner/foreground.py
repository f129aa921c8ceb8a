"""A runner in the foreground: what ``dora run`` is, from the plan to the result."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import anyio

from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner_events import DataflowResult, RunnerEvent
from dora_daemon.process_tree.runtime_dir import RuntimeDir, runtime_root
from dora_daemon.runner.logs.event_queue import CLOSING_SECONDS, Outlet
from dora_daemon.runner.logs.gate import Gate
from dora_daemon.runner.machine.events import StopRequested
from dora_daemon.runner.service import Runner

STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(
    plan: RunPlan,
    *,
    on_event: Callable[[RunnerEvent], None] | None = None,
    on_signal: Callable[[], None] = lambda: None,
    lossless: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> DataflowResult:
    """Run a dataflow to its end, as ``dora_daemon.runner.run_foreground`` says."""
    gate = Gate() if lossless else None
    outlet = Outlet(on_event, gate=gate)
    directory = RuntimeDir.create(runtime_root(environ))
    runner = None
    try:
        runner = Runner(
            plan, directory, on_event=outlet.put, foreground=True, environ=environ, gate=gate
        )
        runner.prepare()
        return anyio.run(_run, runner, on_signal)
    finally:
        directory.release()
        if runner is not None:
            runner.reaper.dismiss()
        _drain(outlet, on_signal, lossless=lossless)


def _drain(outlet: Outlet, on_signal: Callable[[], None], *, lossless: bool) -> None:
    """Wait for the reader of the events, a lossless one for ever; Ctrl-C ends the wait."""
    try:
        outlet.close(None if lossless else CLOSING_SECONDS)
    except KeyboardInterrupt:
        on_signal()
        outlet.close()


async def _run(runner: Runner, on_signal: Callable[[], None]) -> DataflowResult:
    try:
        with signals_stop(runner, on_signal):
            return await runner.run()
    finally:
        # Inside the loop, out of which readers are taken.
        runner.close()


@contextmanager
def signals_stop(runner: Runner, on_signal: Callable[[], None] = lambda: None) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP stop gracefully; a second one kills."""
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    def stop(name: str) -> None:
        runner.tell(StopRequested(f"signal {name}", force=bool(seen)))
        seen.append(name)
        on_signal()

    for number in STOPPING_SIGNALS:
        loop.add_signal_handler(number, stop, number.name)
    try:
        yield
    finally:
        for number in STOPPING_SIGNALS:
            loop.remove_signal_handler(number)
