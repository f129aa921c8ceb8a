"""Downloads of recorded files: from the PUT of a machine to the GET of a client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from starlette.applications import Starlette
from starlette.types import Message
from support.waiting import wait_until_async

from dora_config.protocol.control import Answer, ControlRequest
from dora_config.protocol.recordings import (
    CallRecorders,
    MachineReply,
    RecorderReplies,
    RecordingSize,
    SendRecording,
)
from dora_coordinator.io.rest import recordings
from dora_coordinator.io.rest.recordings import RecordingFiles

CONTENT = b"0123456789"
FILE = "/api/recordings/01a20e4b-f5a3-4858-99fe-d510d04b9561/robot/robot-0.mcap"
GONE: Message = {"type": "http.disconnect"}


@dataclass
class Exchange:
    """A request of which each part of the body, and the end of the client, can be awaited."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    """All of the body was sent."""
    stalled: bool = False
    """The client does not read."""
    _arriving: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)

    async def receive(self) -> Message:
        return await self._arriving.get()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {key.decode(): value.decode() for key, value in message["headers"]}
            return
        if self.stalled:
            await anyio.sleep_forever()
        self.body += message.get("body", b"")
        self.ended = not message.get("more_body", False)

    def arrive(self, message: Message) -> None:
        self._arriving.put_nowait(message)

    async def run(self, application: Starlette, method: str, path: str, **headers: str) -> None:
        await application(
            {
                "type": "http",
                "method": method,
                "path": path,
                "raw_path": path.encode(),
                "root_path": "",
                "query_string": b"",
                "headers": [(key.lower().encode(), text.encode()) for key, text in headers.items()],
            },
            self.receive,
            self.send,
        )


def piece(content: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


class Machine:
    """Answers requests of the coordinator, and uploads what ``messages`` returns for a range."""

    def __init__(self, messages: Callable[[bytes], list[Message]], problem: str = "") -> None:
        self._messages = messages
        self._problem = problem
        self.upload = Exchange()
        self.application = Starlette(routes=RecordingFiles(self).routes())  # type: ignore[arg-type]
        self.tasks: TaskGroup
        """Those of the running test."""

    async def request(self, request: ControlRequest) -> Answer:
        assert isinstance(request, CallRecorders)
        assert request.daemons == ("robot",)
        if self._problem:
            return Answer(id=1, answer=RecorderReplies(problems={"robot": self._problem}))
        wanted = request.request
        assert isinstance(wanted, SendRecording)
        end = None if wanted.last is None else wanted.last + 1
        if wanted.upload:
            for message in self._messages(CONTENT[wanted.first : end]):
                self.upload.arrive(message)
            self.tasks.start_soon(self.upload.run, self.application, "PUT", wanted.upload)
        reply = MachineReply(daemon="robot", reply=RecordingSize(size=len(CONTENT)))
        return Answer(id=1, answer=RecorderReplies(replies=(reply,)))


def run(machine: Machine, method: str = "GET", **headers: str) -> Exchange:
    """Download the file; return the answer."""
    client = Exchange()
    client.arrive(piece(b"", more=False))

    async def download() -> None:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as machine.tasks:
                await client.run(machine.application, method, FILE, **headers)

    anyio.run(download)
    return client


def whole(content: bytes) -> list[Message]:
    return [piece(content[:4], more=True), piece(content[4:], more=False)]


@pytest.mark.parametrize(
    ("asked", "status", "content", "part"),
    [
        ("", 200, CONTENT, None),
        ("bytes=0-", 206, CONTENT, "bytes 0-9/10"),
        ("bytes=3-", 206, CONTENT[3:], "bytes 3-9/10"),
        ("bytes=3-5", 206, CONTENT[3:6], "bytes 3-5/10"),
        ("bytes=9-100", 206, CONTENT[9:], "bytes 9-9/10"),
        ("bytes=1-2,4-5", 200, CONTENT, None),
    ],
)
def test_what_the_machine_uploads_is_returned(
    asked: str, status: int, content: bytes, part: str | None
) -> None:
    machine = Machine(whole)
    answer = run(machine, Range=asked)
    assert (answer.status, answer.body, answer.ended) == (status, content, True)
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers.get("content-range") == part
    assert machine.upload.status == 204


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=5-4"])
def test_a_range_beyond_the_end_is_refused(asked: str) -> None:
    answer = run(Machine(whole, ""), Range=asked)
    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */10"


def test_the_size_is_known_without_an_upload() -> None:
    machine = Machine(whole)
    answer = run(machine, "HEAD")
    assert (answer.status, answer.headers["content-length"]) == (200, "10")
    assert machine.upload.status == 0


def test_the_reason_of_the_machine_is_returned() -> None:
    answer = run(Machine(whole, 'daemon "robot": no such file'))
    assert answer.status == 500
    assert json.loads(answer.body)["error"] == 'daemon "robot": no such file'


def test_an_interrupted_upload_cuts_the_download() -> None:
    answer = run(Machine(lambda content: [piece(content[:4], more=True), GONE]))
    assert (answer.status, answer.body, answer.ended) == (200, CONTENT[:4], False)


def test_a_machine_that_sends_nothing_ends_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "BEGIN_SECONDS", 0.01)
    machine = Machine(whole)
    machine.upload.run = lambda *_: anyio.lowlevel.checkpoint()  # type: ignore[method-assign]
    answer = run(machine)
    assert answer.status == 500
    assert b"has not sent the file for 0.01 s" in answer.body


def test_a_machine_that_stalls_cuts_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "STALL_SECONDS", 0.05)
    machine = Machine(lambda content: [piece(content[:4], more=True)])
    answer = run(machine)
    assert (answer.body, answer.ended) == (CONTENT[:4], False)
    assert machine.upload.headers["connection"] == "close"


@pytest.mark.parametrize("gone", [True, False])
def test_the_upload_ends_when_the_client_is_gone_or_stalls(
    monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    if not gone:
        monkeypatch.setattr(recordings, "STALL_SECONDS", 0.05)
    machine = Machine(lambda content: [piece(content[:1], more=True)] * 5)
    client = Exchange(stalled=True)

    async def leave() -> None:
        await wait_until_async(
            lambda: (client if gone else machine.upload).status != 0, what="the answer"
        )
        client.arrive(GONE)

    async def download() -> None:
        client.arrive(piece(b"", more=False))
        with anyio.fail_after(30):
            async with anyio.create_task_group() as machine.tasks:
                machine.tasks.start_soon(leave)
                await client.run(machine.application, "GET", FILE)

    anyio.run(download)
    assert machine.upload.status == 409
    assert machine.upload.headers["connection"] == "close"


def test_an_upload_that_is_not_expected_is_refused() -> None:
    exchange, machine = Exchange(), Machine(whole)
    anyio.run(exchange.run, machine.application, "PUT", "/api/recordings/uploads/x")
    assert (exchange.status, exchange.headers["connection"]) == (404, "close")
