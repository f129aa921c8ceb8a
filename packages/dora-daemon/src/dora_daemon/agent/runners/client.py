"""Connection to one runner, from its start or adoption until its processes have ended."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread

from dora_config.access import environ_without_token
from dora_config.protocol import runner as protocol
from dora_config.protocol.envelope import clean_lines, clean_text
from dora_config.protocol.runner_events import DATAFLOW_ENDED
from dora_config.spawn_argv import run_module
from dora_daemon.agent.builds.files import NotBuilt
from dora_daemon.agent.events import (
    RunnerChanged,
    RunnerEnded,
    RunnerNotice,
    RunnerPlaced,
    RunnerRefused,
)
from dora_daemon.agent.linking import LinkError, LinkSetup
from dora_daemon.agent.node_paths import LocalMachine, deliver, explain, log_dirs, make_plan
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.runners.directory import RunnerDirectory
from dora_daemon.agent.runners.pending_requests import SILENCE_LIMIT, OnReply, PendingRequests
from dora_daemon.agent.runners.spare import SpareRunner
from dora_daemon.code.delivery import CodeNotDelivered
from dora_daemon.lifecycle_lines import LifecycleLines
from dora_daemon.out_dir import history_file
from dora_daemon.process_tree.reaper import LOG, OWNER, kill_marked
from dora_daemon.process_tree.runtime_dir import PLAN, RuntimeDir, RuntimeDirError
from dora_daemon.runner.control.reading import read_message
from dora_node_api.protocol.control_socket import connect_unix
from dora_node_api.protocol.runner_index import CONTROL_SOCKET

RETRY = 0.02
"""Seconds between attempts to connect to a runner that starts."""
STATUS_PAUSE = 0.001
"""Seconds per node between a notice and the request of a status, which then covers several notices.
Their number and the duration of a status grow with the number of nodes.
"""
REFUSED_PAUSE = 0.5
"""Seconds between checks whether a runner of another version has ended."""
PART_VARIABLE = "DORA_RUNNER_PART"
"""Marks a runner and all processes that it starts with their part."""

logger = logging.getLogger("dora.daemon")
_LEVELS = {"info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


@dataclass(eq=False)
class RunnerClient:
    """Starts a runner or adopts one; exactly one of :meth:`start` and :meth:`attend` is called."""

    dataflow_id: str
    _mark: str
    """Set in the environment of the runner and of all processes that it starts."""
    _deliver: Callable[[RunnerClient, RunnerNotice], None]
    _changed: Callable[[], None]
    """Called when the status has other states or processes than before."""
    _spare: SpareRunner | None = None
    _former: RunnerClient | None = None
    """Client of the former runner of the part, which may still clean up."""
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)
    status: protocol.RunnerStatus | None = None
    _state: protocol.RunnerState | None = None
    """State that was delivered last."""
    _writer: asyncio.StreamWriter | None = None
    _requests: PendingRequests = field(default_factory=PendingRequests)
    _process: subprocess.Popen[bytes] | None = None
    _directory: RunnerDirectory | None = None
    _kill_wanted: bool = False
    _handshake: int = 0
    """Number of the last handshake request."""
    _refusal: str | None = None
    """Why the runner, of another version, refuses requests."""
    _is_mute: bool = False
    _runner_ended: bool = False
    _status_timer: asyncio.TimerHandle | None = None
    _silence_timer: asyncio.TimerHandle | None = None
    _lifecycle_lines: LifecycleLines = field(default_factory=LifecycleLines)

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection to the runner, which may not have answered yet."""
        return self._writer is not None

    def send(self, request: protocol.RunnerRequest, on_reply: OnReply | None = None) -> None:
        """Send a request.

        With ``on_reply``, which is called once, the runner must be connected. Otherwise the request
        is repeated on new connections until the runner has answered.
        """
        writer = None if self._writer is None or self._writer.is_closing() else self._writer
        if on_reply is not None and writer is None:
            problem = self._refusal or "the runner of that dataflow does not answer at the moment"
            self._fail(on_reply, problem)
            return
        number = self._requests.add(request, on_reply)
        if isinstance(request, protocol.Handshake):
            self._handshake = number
        if writer is not None:
            writer.write(protocol.request_line(number, request))
        self._watch_silence()

    def _fail(self, on_reply: OnReply, problem: str) -> None:
        if self._phase == "finished":
            on_reply(protocol.Refusal(message=DATAFLOW_ENDED, ended=True), None)
        else:
            on_reply(None, problem)

    def signal(self, number: signal.Signals) -> None:
        """SIGTERM the runner, which then stops its nodes; or SIGKILL it: its reaper and
        :meth:`attend` clean up.
        """
        self._kill_wanted |= number is signal.SIGKILL
        if self._process is not None:
            self._process.send_signal(number)
        elif self._directory is not None:
            self._directory.signal(number)

    def kill_if_directory_removed(self) -> None:
        """SIGKILL a runner without directory and its nodes: it cannot restart a node, and the next
        daemon process would not find it. The part is then started again in a new directory.
        """
        directory = self._directory
        if directory is not None and self._phase == "running" and directory.was_removed():
            text = "%s was removed while the nodes of dataflow %s ran: they are started again"
            logger.warning(text, directory.path, self.dataflow_id)
            kill_marked(self._mark)

    async def start(
        self, record: PartRecord, root: Path, machine: LocalMachine, links: LinkSetup
    ) -> None:
        """Spawn the runner in a new directory below ``root``, then attend it."""
        token = str(uuid.uuid4())
        if record.attempt > 1 or record.starts:
            # A node must not run twice: earlier processes may have lost their record and directory.
            await anyio.to_thread.run_sync(kill_marked, self._mark)
        if self._former is not None:
            # It may still kill by the mark, which the new runner has as well.
            await self._former.has_ended.wait()
            self._former = None
        try:
            await deliver(record.spec, machine, record.dataflow_id, record.dataflow_id)
            plan = await links.complete(make_plan(record, machine), record, token)
            created = await anyio.to_thread.run_sync(RuntimeDir.create, root)
            try:
                directory = RunnerDirectory(created.path, token)
                created.write(OWNER, token)
                created.write(PLAN, plan.model_dump_json())
                placed = RunnerPlaced(
                    self.dataflow_id,
                    str(created.path),
                    token,
                    log_dirs(plan),
                    explain(record, machine),
                    str(history_file(plan)),
                )
                self._deliver(self, placed)  # saved before there is a process
                self._process = await self._find_process(created)
            finally:
                os.close(created.lock_descriptor)
        except (NotBuilt, CodeNotDelivered, LinkError) as error:
            self._deliver(self, RunnerEnded(self.dataflow_id, str(error)))
            return
        except (RuntimeDirError, OSError) as error:
            reason = f"its runner could not be started: {error}"
            self._deliver(self, RunnerEnded(self.dataflow_id, reason))
            return
        if self._kill_wanted:
            self._process.kill()
        await self.attend(directory)

    async def _find_process(self, directory: RuntimeDir) -> subprocess.Popen[bytes]:
        """Return a runner of the directory: the spare, or a new process."""
        part = {PART_VARIABLE: json.dumps(self._mark)}
        lock = directory.lock_descriptor
        log = os.open(directory.path / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            spare = None
            if self._spare is not None:
                spare = await self._spare.take(str(directory.path), part, (lock, log))
            return spare or _spawn(directory, part, log)
        finally:
            os.close(log)

    async def attend(self, directory: RunnerDirectory, *, borrowed: bool = False) -> None:
        """Keep a connection to the runner until it has ended, clean up, and deliver the end.

        ``borrowed``: its owner cleans up.
        """
        self._directory = directory
        while not await anyio.to_thread.run_sync(directory.is_unlocked):
            if self._refusal is not None:
                if await anyio.to_thread.run_sync(directory.result) is not None:
                    self.signal(signal.SIGKILL)  # it waits until its result is acknowledged
                await anyio.sleep(REFUSED_PAUSE)
                continue
            with suppress(OSError):
                # Do not wait: the backlog of a suspended runner may be full.
                connection = connect_unix(directory.path / CONTROL_SOCKET, timeout=0)
                if directory.is_ours():
                    await self._converse(connection)
                else:
                    connection.close()
            await anyio.sleep(RETRY)
        self._runner_ended = True
        if self._process is not None:
            await anyio.to_thread.run_sync(self._process.wait)
        if borrowed:
            self._deliver(self, RunnerEnded(self.dataflow_id, "its runner ended unexpectedly"))
        else:
            await self._deliver_end(directory)

    def _watch_silence(self) -> None:
        """Check the requests that can time out every second while there are any."""
        if self._silence_timer is None and self._requests.is_timed and not self._runner_ended:
            loop = asyncio.get_running_loop()
            self._silence_timer = loop.call_later(1.0, self._note_silence)

    def _note_silence(self) -> None:
        """Let requests time out, and kill a runner that does not answer a stop."""
        self._silence_timer = None
        calls, stop_timed_out = self._requests.tick()
        for on_reply in calls:
            on_reply(None, f"the runner of that dataflow has not answered for {SILENCE_LIMIT} s")
        if stop_timed_out:
            self._is_mute = True
            self.signal(signal.SIGKILL)
        self.send(protocol.GetStatus())  # a runner answers this even if a request takes long

    async def _deliver_end(self, directory: RunnerDirectory) -> None:
        if not await anyio.to_thread.run_sync(directory.is_ours):
            # If the directory was removed, the runner may still run.
            await anyio.to_thread.run_sync(kill_marked, self._mark)
        result = await anyio.to_thread.run_sync(directory.result)
        if result is not None:
            finished = protocol.RunnerState(phase="finished", result=result)
            self._deliver(self, RunnerChanged(self.dataflow_id, finished))
        # The result has been stored, so the directory can be removed.
        how = "did not answer and was killed" if self._is_mute else "ended unexpectedly"
        reason = f"its runner {how}" + await anyio.to_thread.run_sync(directory.last_output)
        await anyio.to_thread.run_sync(directory.clean_up)
        self._deliver(self, RunnerEnded(self.dataflow_id, reason))

    async def _converse(self, connection: socket.socket) -> None:
        """Use one connection until it ends."""
        reader, self._writer = await asyncio.open_unix_connection(
            sock=connection, limit=protocol.MAX_LINE
        )
        try:
            for request in self._requests.connect():
                self.send(request)
            while (message := await read_message(reader)) is not None:
                if isinstance(message, protocol.Envelope):
                    self._receive(message)
                if self._refusal is not None:
                    return
        except protocol.RunnerProtocolError as error:
            logger.warning("runner of dataflow %s: %s", self.dataflow_id, error)
        except OSError:
            pass  # the runner ended during a write, which `attend` detects
        finally:
            writer, self._writer = self._writer, None
            writer.close()
            problem = "the runner of that dataflow ended before it had answered"
            for on_reply in self._requests.disconnect():
                self._fail(on_reply, problem)

    def _receive(self, envelope: protocol.Envelope) -> None:
        on_reply = self._requests.receive(envelope.id)
        if on_reply is not None:
            on_reply(envelope.reply, None)
            return
        match envelope:
            case protocol.Envelope(notice=notice) if notice is not None:
                if isinstance(notice, protocol.RunnerState):
                    self._observe(notice)
                self._log(notice)
                self._request_status_soon()
            case protocol.Envelope(reply=protocol.RunnerStatus() as status):
                before, self.status = self.status, status
                if _processes(before) != _processes(status):
                    self._changed()
                self._observe(status.state)
            case protocol.Envelope(id=number, reply=protocol.Refusal(message=message)) if (
                number == self._handshake
            ):
                self._refusal = clean_lines(message)
                text = "dataflow %s: %s; its nodes run on"
                logger.warning(text, self.dataflow_id, self._refusal)
                self._deliver(self, RunnerRefused(self.dataflow_id, self._refusal))
            case protocol.Envelope(reply=protocol.Refusal(message=message)):
                logger.warning("runner of dataflow %s refuses: %s", self.dataflow_id, message)
            case _:
                pass

    @property
    def _phase(self) -> str | None:
        return None if self._state is None else self._state.phase

    def _observe(self, state: protocol.RunnerState) -> None:
        """Deliver a state unless it is the last one."""
        if (state := state.without_figures()) != self._state:
            self._state = state
            self._deliver(self, RunnerChanged(self.dataflow_id, state))

    def _request_status_soon(self) -> None:
        if self._status_timer is None:
            nodes = 0 if self.status is None else len(self.status.nodes)
            loop = asyncio.get_running_loop()
            self._status_timer = loop.call_later(nodes * STATUS_PAUSE, self._request_status)

    def _request_status(self) -> None:
        self._status_timer = None
        self.send(protocol.GetStatus())

    def _log(self, notice: protocol.RunnerEvent) -> None:
        """Log restarts and failures of nodes."""
        line = self._lifecycle_lines.line(notice)
        if line is not None:
            named = None if self.status is None else self.status.name
            label, message = clean_text(named or self.dataflow_id), clean_lines(line.message)
            logger.log(_LEVELS[line.level], 'dataflow %s: node "%s" %s', label, line.node, message)


def _processes(status: protocol.RunnerStatus | None) -> list[tuple[str, str, int | None]]:
    """Return state and process id of each node; changes of these are reported at once."""
    return [] if status is None else [(node.node, node.status, node.pid) for node in status.nodes]


def _spawn(directory: RuntimeDir, part: Mapping[str, str], log: int) -> subprocess.Popen[bytes]:
    """Spawn a runner in its own session; it inherits the lock of its directory."""
    lock = directory.lock_descriptor
    return subprocess.Popen(
        [*run_module("dora_daemon.runner"), str(directory.path), str(lock)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**environ_without_token(), **part},
        start_new_session=True,
        pass_fds=(lock,),
    )
