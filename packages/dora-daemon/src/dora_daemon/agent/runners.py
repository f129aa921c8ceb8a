"""Runner processes of this daemon: started, adopted, asked, and known to be gone."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from dora_config.access import TOKEN_VARIABLE
from dora_config.process_identity import is_alive
from dora_config.protocol.envelope import clean_lines, clean_text
from dora_config.protocol.runner import (
    DataflowFinished,
    DataflowResult,
    Envelope,
    FollowEvents,
    GetStatus,
    Handshake,
    LineDecoder,
    LinkChanged,
    Refusal,
    RunnerEvent,
    RunnerProtocolError,
    RunnerReply,
    RunnerRequest,
    RunnerStatus,
    ShutDown,
    StopAllNodes,
    request_line,
)
from dora_config.spawn_argv import run_module
from dora_daemon.agent.builds.files import NotBuilt
from dora_daemon.agent.events import Event, RunnerGone, RunnerPlaced, RunnerReached, RunnerSpoke
from dora_daemon.agent.linking import LinkError, LinkSetup
from dora_daemon.agent.node_paths import Machine, deliver, explain, log_dirs, make_plan
from dora_daemon.agent.records import PartRecord
from dora_daemon.code.delivery import CodeNotDelivered
from dora_daemon.lifecycle_lines import LifecycleLines
from dora_daemon.process_tree import runtime_dir
from dora_daemon.process_tree.errors import RuntimeDirError
from dora_daemon.process_tree.reaper import LOG, OWNER, RESULT, kill_marked
from dora_daemon.process_tree.runtime_dir import PLAN
from dora_node_api.protocol.control_socket import connect_unix

RETRY = 0.02
"""Seconds between attempts to reach the socket of a runner that starts."""
LOOKS = 10
LOOKS_OF_FORCE = 3
"""A runner from which nothing has come in so many looks, a second apart, hangs or is stopped."""
PART_VARIABLE = "DORA_RUNNER_PART"
"""In the environment of a runner and of all that it starts: which part of which dataflow it is."""

Answered = Callable[[RunnerReply | None, str | None], None]
"""Takes the reply to a request, or a sentence about why there is none."""

_OF_THE_MOMENT = (Handshake, FollowEvents, GetStatus)
"""What every new connection asks anyway."""

logger = logging.getLogger("dora.daemon")
_LEVELS = {"info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


class Runners:
    """Each runner is attended by one task, from its start or adoption until nothing is left."""

    def __init__(
        self,
        tasks: TaskGroup,
        root: Path,
        machine: Callable[[], Machine],
        post: Callable[[Event], None],
        changed: Callable[[], None],
        links: LinkSetup,
    ) -> None:
        """``changed`` is called when :meth:`statuses` has other states or processes than before."""
        self._changed = changed
        self._links = links
        self._tasks = tasks
        self._root = root
        self._machine = machine
        self._post = post
        self._attended: dict[str, _Attendant] = {}

    def start(self, record: PartRecord) -> None:
        attendant = self._new(record.dataflow_id)
        if record.recovers is not None:
            nodes = ", ".join(node.id for node in record.spec.resolved.nodes)
            text = "dataflow %s: starting %s again (recovery): %s"
            label = record.spec.name or record.dataflow_id
            logger.warning(text, clean_text(label), nodes, clean_lines(record.recovers))
        start = attendant.start
        self._tasks.start_soon(start, record, self._root, self._machine(), self._links)

    def adopt(self, record: PartRecord) -> None:
        """Attend a runner that an earlier daemon started."""
        attendant = self._new(record.dataflow_id)
        home = _Home(Path(record.runtime_dir), record.runtime_token)
        self._tasks.start_soon(attendant.attend, home)

    def ask(self, dataflow_id: str, request: RunnerRequest) -> None:
        if dataflow_id in self._attended:
            self._attended[dataflow_id].ask(request)

    def call(self, dataflow_id: str, request: RunnerRequest, answered: Answered) -> None:
        """Send a request whose reply somebody waits for; ``answered`` is called once."""
        attendant = self._attended.get(dataflow_id)
        if attendant is None:
            answered(None, "no runner of that dataflow is on this machine")
        else:
            attendant.ask(request, answered)

    def kill(self, dataflow_id: str) -> None:
        if dataflow_id in self._attended:
            self._attended[dataflow_id].kill()

    def ask_for_status(self) -> None:
        """Have fresh figures for the next :meth:`statuses`."""
        for attendant in self._attended.values():
            attendant.end_if_homeless()
            attendant.ask(GetStatus())

    def statuses(self) -> list[RunnerStatus]:
        """What each runner told of itself last."""
        found = (attendant.status for attendant in self._attended.values())
        return [status for status in found if status is not None]

    def _new(self, dataflow_id: str) -> _Attendant:
        mark = f"{dataflow_id}@{self._machine().machine_id or ''}"
        attendant = _Attendant(dataflow_id, mark, self._deliver, self._changed)
        self._attended[dataflow_id] = attendant
        return attendant

    def _deliver(self, attendant: _Attendant, event: Event) -> None:
        """Pass on what an attendant says, unless it has been replaced."""
        if self._attended.get(attendant.dataflow_id) is not attendant:
            return
        if isinstance(event, RunnerGone):
            del self._attended[attendant.dataflow_id]
        self._post(event)


class _Attendant:
    def __init__(
        self,
        dataflow_id: str,
        mark: str,
        deliver: Callable[[_Attendant, Event], None],
        changed: Callable[[], None],
    ) -> None:
        """``mark`` stands in the environment of the runner and of all that it starts."""
        self.dataflow_id = dataflow_id
        self._mark = mark
        self._changed = changed
        self.status: RunnerStatus | None = None
        self._deliver = deliver
        self._writer: asyncio.StreamWriter | None = None
        self._last_request = 0
        self._waiting: dict[int, Answered] = {}
        self._owed: dict[int, RunnerRequest] = {}
        """Requests that the runner has not answered: another connection brings them again."""
        self._process: subprocess.Popen[bytes] | None = None
        self._home: _Home | None = None
        self._reached = False
        self._kill_wanted = False
        self._has_ended = False
        self._heard_of = 0
        """Counts what the runner has said."""
        self._is_mute = False
        self._lifecycle_lines = LifecycleLines()

    def ask(self, request: RunnerRequest, answered: Answered | None = None) -> None:
        """Send a request; the runner's notices and its end say what came of it.

        One whose answer nobody waits for is sent, and sent again, until the runner has had it.
        """
        connected = self._writer is not None and not self._writer.is_closing()
        if answered is not None and not connected:
            answered(None, "the runner of that dataflow does not answer at the moment")
            return
        self._last_request += 1
        if answered is not None:
            self._waiting[self._last_request] = answered
        elif not isinstance(request, _OF_THE_MOMENT):
            self._owed[self._last_request] = request
        number = self._last_request
        if self._writer is not None and connected:
            self._writer.write(request_line(number, request))
        if answered is not None:
            self._look_later(number, LOOKS)
        elif isinstance(request, StopAllNodes | ShutDown):
            force = isinstance(request, StopAllNodes) and request.force
            self._look_later(number, LOOKS_OF_FORCE if force else LOOKS)

    def _look_later(self, number: int, looks: int) -> None:
        """See that a request gets its answer, or that the runner says at least that it lives.

        Several looks, because we may have been stopped ourselves, and have to read what it said.
        """
        self.ask(GetStatus())
        heard = self._heard_of
        asyncio.get_running_loop().call_later(1.0, self._look, number, heard, looks, looks)

    def _look(self, number: int, heard: int, looks: int, left: int) -> None:
        if number not in self._waiting and number not in self._owed:
            return
        if self._heard_of != heard:
            self._look_later(number, looks)
        elif left > 1:
            loop = asyncio.get_running_loop()
            loop.call_later(1.0, self._look, number, heard, looks, left - 1)
        elif (answered := self._waiting.pop(number, None)) is not None:
            answered(None, f"the runner of that dataflow has not answered for {looks} s")
        else:
            self._is_mute = True
            self.kill()

    def kill(self) -> None:
        """SIGKILL the runner; its reaper and then we clean up behind it."""
        self._kill_wanted = True
        if self._process is not None:
            self._process.kill()
        elif self._home is not None and self._home.is_ours():
            entry = runtime_dir.read_entry(self._home.directory)
            if entry is not None and is_alive(entry.pid, entry.start_time):
                with suppress(ProcessLookupError):
                    os.kill(entry.pid, signal.SIGKILL)

    def end_if_homeless(self) -> None:
        """SIGKILL a runner whose directory was removed: it cannot start a node again, and the next
        daemon could not find it. What is started in its place has a directory.
        """
        home, status = self._home, self.status
        running = status is not None and status.phase == "running"
        if home is not None and running and not self._has_ended and home.was_removed():
            text = "%s was removed while the nodes of dataflow %s ran: they are started again"
            logger.warning(text, home.directory, self.dataflow_id)
            kill_marked(self._mark)

    # ------------------------------------------------------------------------ life

    async def start(
        self, record: PartRecord, root: Path, machine: Machine, links: LinkSetup
    ) -> None:
        token = str(uuid.uuid4())
        if record.attempt > 1:
            # One that no record or directory tells of any more: each node exactly once.
            await anyio.to_thread.run_sync(kill_marked, self._mark)
        try:
            await deliver(record.spec, machine, record.dataflow_id)
            plan = await links.complete(make_plan(record, machine), record, token)
            directory = await anyio.to_thread.run_sync(runtime_dir.RuntimeDir.create, root)
            try:
                home = _Home(directory.path, token)
                directory.write(OWNER, home.token)
                directory.write(PLAN, plan.model_dump_json())
                placed = RunnerPlaced(
                    self.dataflow_id,
                    str(home.directory),
                    home.token,
                    log_dirs(plan),
                    explain(record, machine),
                )
                self._deliver(self, placed)  # known to the next daemon before there is a process
                self._process = _spawn(directory, self._mark)
            finally:
                os.close(directory.lock_descriptor)
        except (NotBuilt, CodeNotDelivered, LinkError) as error:
            self._deliver(self, RunnerGone(self.dataflow_id, str(error)))
            return
        except (RuntimeDirError, OSError) as error:
            reason = f"its runner could not be started: {error}"
            self._deliver(self, RunnerGone(self.dataflow_id, reason))
            return
        if self._kill_wanted:
            self._process.kill()
        await self.attend(home)

    async def attend(self, home: _Home) -> None:
        """Talk to the runner until it has ended, then say how."""
        self._home = home
        while not await anyio.to_thread.run_sync(home.is_left):
            with suppress(OSError):
                # Without waiting: a stopped runner whose socket is full must not stop us, too.
                connection = connect_unix(home.directory / "c", timeout=0)
                if home.is_ours():
                    await self._talk(connection)
                else:
                    connection.close()
            await anyio.sleep(RETRY)
        if self._process is not None:
            await anyio.to_thread.run_sync(self._process.wait)
        await self._tell_end(home)

    async def _tell_end(self, home: _Home) -> None:
        if not await anyio.to_thread.run_sync(home.is_ours):
            # Where somebody removed its directory it may still live.
            await anyio.to_thread.run_sync(kill_marked, self._mark)
        result = await anyio.to_thread.run_sync(home.result)
        if result is not None:
            self._deliver(self, RunnerSpoke(self.dataflow_id, DataflowFinished(result=result)))
        # by now the result is saved; what is left of the runner can go
        how = "did not answer and was killed" if self._is_mute else "ended unexpectedly"
        reason = f"its runner {how}" + await anyio.to_thread.run_sync(home.last_words)
        await anyio.to_thread.run_sync(home.clean_up)
        self._deliver(self, RunnerGone(self.dataflow_id, reason))

    async def _talk(self, connection: socket.socket) -> None:
        """One connection to the runner, until it ends."""
        reader, self._writer = await asyncio.open_unix_connection(sock=connection, limit=65536)
        decoder = LineDecoder()
        try:
            owed, self._owed = self._owed, {}
            first = (Handshake(), FollowEvents(logs=False), GetStatus())
            for request in (*first, *owed.values()):
                self.ask(request)
            while data := await reader.read(65536):
                for envelope in decoder.feed(data):
                    if isinstance(envelope, Envelope):
                        self._heard(envelope)
        except RunnerProtocolError as error:
            logger.warning("runner of dataflow %s: %s", self.dataflow_id, error)
        except OSError:
            pass  # it ended while we wrote; what follows finds out
        finally:
            writer, self._writer = self._writer, None
            writer.close()
            waiting, self._waiting = self._waiting, {}
            for answered in waiting.values():
                answered(None, "the runner of that dataflow ended before it had answered")

    def _log(self, notice: RunnerEvent) -> None:
        """What happened to a node's process, for the daemon's log."""
        line = self._lifecycle_lines.line(notice)
        if line is not None:
            named = None if self.status is None else self.status.name
            label, message = clean_text(named or self.dataflow_id), clean_lines(line.message)
            logger.log(_LEVELS[line.level], 'dataflow %s: node "%s" %s', label, line.node, message)

    def _heard(self, envelope: Envelope) -> None:
        self._heard_of += 1
        answered = None
        if envelope.id is not None:
            self._owed.pop(envelope.id, None)
            answered = self._waiting.pop(envelope.id, None)
        if answered is not None:
            answered(envelope.reply, None)
            return
        match envelope:
            case Envelope(notice=notice) if notice is not None:
                self._log(notice)
                self._has_ended |= isinstance(notice, DataflowFinished)
                self._deliver(self, RunnerSpoke(self.dataflow_id, notice))
                self.ask(GetStatus())
            case Envelope(reply=RunnerStatus() as status):
                before, self.status = self.status, status
                if _essence(before) != _essence(status):
                    self._changed()
                if not self._reached:
                    self._reached = True
                    self._deliver(self, RunnerReached(self.dataflow_id, status))
                elif status.link is not None:
                    changed = LinkChanged(report=status.link)
                    self._deliver(self, RunnerSpoke(self.dataflow_id, changed))
            case Envelope(reply=Refusal(message=message)):
                logger.warning("runner of dataflow %s refuses: %s", self.dataflow_id, message)
            case _:
                pass


def _essence(status: RunnerStatus | None) -> list[tuple[str, str, int | None]]:
    """What is worth telling at once; figures of use can wait."""
    return [] if status is None else [(node.node, node.state, node.pid) for node in status.nodes]


def _spawn(directory: runtime_dir.RuntimeDir, mark: str) -> subprocess.Popen[bytes]:
    """A runner of its own session, which keeps the lock of its directory from the first moment."""
    environ = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    environ[PART_VARIABLE] = json.dumps(mark)
    log = os.open(directory.path / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [
                *run_module("dora_daemon.runner"),
                str(directory.path),
                str(directory.lock_descriptor),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environ,
            start_new_session=True,
            pass_fds=(directory.lock_descriptor,),
        )
    finally:
        os.close(log)


@dataclass(frozen=True, slots=True)
class _Home:
    """The directory of one runner. Once that is gone, another may get the same number."""

    directory: Path
    token: str

    def is_ours(self) -> bool:
        try:
            return (self.directory / OWNER).read_text() == self.token
        except OSError:
            return False

    def was_removed(self) -> bool:
        """Whether nobody has a directory there; trouble with reading it is no answer."""
        try:
            (self.directory / OWNER).stat()
        except FileNotFoundError:
            return True
        except OSError:
            pass
        return False

    def is_left(self) -> bool:
        """Whether its runner does not live any more: nobody holds the lock, or it is another's."""
        if not self.is_ours():
            return True
        try:
            descriptor = runtime_dir.lock(self.directory / "lock")
        except OSError:
            return True  # it is just being removed
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def result(self) -> DataflowResult | None:
        """What the runner left behind, if it came to its end."""
        try:
            found = DataflowResult.model_validate_json((self.directory / RESULT).read_bytes())
        except (OSError, ValueError):
            return None
        return found if self.is_ours() else None

    def last_words(self) -> str:
        """Of a runner that died, for the reason that users are shown."""
        try:
            lines = (self.directory / LOG).read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "".join(f"\n  {line}" for line in lines[-5:]) if self.is_ours() else ""

    def clean_up(self) -> None:
        """Kill what the runner had started, remove its directory; its reaper may be faster."""
        with suppress(RuntimeDirError, OSError):
            if self.is_ours():
                (self.directory / RESULT).unlink(missing_ok=True)
            runtime_dir.sweep(self.directory.parent)
