"""Requests to the runners of `dora run` on this computer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import anyio
import anyio.to_thread

from dora_cli._version import __version__
from dora_config import DoraError
from dora_config.protocol.run_plan import RunPlan
from dora_config.protocol.runner import (
    Envelope,
    Handshake,
    LineDecoder,
    Refusal,
    RunnerProtocolError,
    RunnerReply,
    RunnerRequest,
    request_line,
)
from dora_daemon.process_tree.runner_index import CONTROL_SOCKET, IndexEntry
from dora_daemon.process_tree.runtime_dir import PLAN, living_runners, runtime_root
from dora_node_api.protocol.control_socket import connect_unix

ANSWER_SECONDS = 30.0
"""Time for a runner to answer; a stopped node may need its grace."""


class RunnerUnreachable(DoraError):
    """The runner has ended or does not answer."""


class RunnerSilent(RunnerUnreachable):
    """The runner exists but does not answer: it is suspended, or overloaded."""


@dataclass(frozen=True)
class LocalRun:
    """One `dora run`."""

    directory: Path
    entry: IndexEntry

    @cached_property
    def plan(self) -> RunPlan | None:
        """The plan; None for a run of another version, which has not stored it."""
        try:
            return RunPlan.model_validate_json((self.directory / PLAN).read_bytes())
        except (OSError, ValueError):
            return None

    @property
    def name(self) -> str | None:
        """The dataflow's name, or else that of its folder."""
        if self.entry.name is not None or self.plan is None:
            return self.entry.name
        return Path(self.plan.working_dir).name or None

    @property
    def label(self) -> str:
        """Its name, or else its id, for messages."""
        return f'"{self.name}"' if self.name is not None else self.entry.dataflow_id

    async def call(self, request: RunnerRequest, seconds: float = ANSWER_SECONDS) -> RunnerReply:
        """Return the reply. Raises RunnerUnreachable, and for a refusal DoraError."""
        try:
            with anyio.fail_after(seconds):
                reply = await self._exchange(request, seconds)
        except TimeoutError as error:
            raise RunnerSilent(
                f"the run {self.label} has not answered for {seconds:g} s; its `dora run` may be "
                "suspended: continue it with `fg`"
            ) from error
        except (OSError, RunnerProtocolError) as error:
            raise RunnerUnreachable(
                f"the runner of dataflow {self.entry.dataflow_id} does not answer ({error})"
            ) from error
        if isinstance(reply, Refusal):
            raise DoraError(reply.message)
        return reply

    async def _exchange(self, request: RunnerRequest, seconds: float) -> RunnerReply:
        connect = partial(connect_unix, self.directory / CONTROL_SOCKET, timeout=seconds)
        connection = await anyio.to_thread.run_sync(connect)
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        try:
            writer.write(request_line(1, Handshake(release=__version__)) + request_line(2, request))
            await writer.drain()
            decoder = LineDecoder()
            while data := await reader.read(65536):
                for message in decoder.feed(data):
                    reply = message.reply if isinstance(message, Envelope) else None
                    if reply is not None and (message.id == 2 or isinstance(reply, Refusal)):
                        return reply
            raise ConnectionError("it closed the connection")
        finally:
            writer.close()


def local_runs(dataflow: str | None) -> list[LocalRun]:
    """Return the runs on this computer, or the one with this id; blocking."""
    return [
        LocalRun(directory, entry)
        for directory, entry in living_runners(runtime_root())
        if entry.foreground and dataflow in (None, entry.dataflow_id)
    ]
