"""Streams that a page opens: state, log lines, messages of an output."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, suppress
from typing import Annotated, Any, Final, Literal, NoReturn

import anyio
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from dora_cli.coordinator.errors import RequestFailed
from dora_config.dataflow.sources import LogLevel
from dora_config.errors import DoraError
from dora_config.protocol.control import ListDataflows, LogLines, LogsEnd, ReadLogs, WatchTopics
from dora_config.protocol.dataflow import LogFilter, LogPosition
from dora_config.protocol.envelope import DataflowUuid
from dora_config.protocol.topics import TopicsEnd, TopicUpdate, WatchedTopics
from dora_ui.connection import CoordinatorConnection, ReplyStream
from dora_ui.feed import Feed, State, difference

MAX_TAIL: Final = 5000
"""Most earlier log lines that a page may request."""
RETRY_PAUSE: Final = 1.0
"""Seconds between two attempts."""
STORE_LOST: Final = 60.0
"""Seconds after a lost connection in which a restarted coordinator may lack a dataflow."""
SAMPLE_BYTES: Final = 65_536
"""Most bytes of a message that is not a picture."""
PICTURE_BYTES: Final = 192 * 1024
WHOLE_PICTURE_BYTES: Final = 16 * 1024 * 1024
"""Most bytes of a picture (PICTURE_BYTES), and of one that cannot be made smaller."""
MAX_LONG: Final = 2 * WHOLE_PICTURE_BYTES
"""Most characters of a message that is sent in pieces."""

LONG_LINE: Final = 16_384
"""Most characters of a log line; longer lines are shortened."""

_TEXTS: Final = ("ts", "msg")
"""Fields of every log line."""
_KEPT_FIELDS: Final = ("level", "node", "stream", "target", "file", "line")
"""Fields that a shortened line keeps."""

Send = Callable[[dict[str, Any]], Awaitable[None]]

MAX_STREAMS = 32
"""Maximum number of streams of one page."""
PROTOCOL_ERROR = 1008
"""Status that closes the WebSocket of a page with an unknown frame."""
WRITE_SECONDS = 20.0
"""Time for a page to receive a frame; a stalled page is closed and connects again."""


class PageClosed(Exception):
    """The page was closed, has stalled, or sent an unknown frame."""


class Viewer:
    """Serves the frames of one page until it is closed."""

    def __init__(self, socket: WebSocket, feed: Feed, coordinator: CoordinatorConnection) -> None:
        self._socket = socket
        self._feed = feed
        self._coordinator = coordinator
        self._streams: dict[int, anyio.CancelScope] = {}
        self._acknowledged: dict[int, anyio.Semaphore] = {}
        self._writing = anyio.Lock()

    async def run(self) -> None:
        await self._socket.accept()
        try:
            async with anyio.create_task_group() as tasks:
                while True:
                    frame = await self._receive()
                    match frame:
                        case Close(id=number):
                            if number in self._streams:
                                self._streams[number].cancel()
                        case Acknowledge(id=number):
                            if number in self._acknowledged:
                                self._acknowledged[number].release()
                        case _ if len(self._streams) >= MAX_STREAMS:
                            await self._end(frame.id, f"at most {MAX_STREAMS} streams per page")
                        case _ if frame.id in self._streams:
                            await self._refuse(f"stream {frame.id} is open already")
                        case _:
                            scope = self._streams[frame.id] = anyio.CancelScope()
                            tasks.start_soon(self._stream, frame, scope)
        except* PageClosed:
            pass

    async def _stream(
        self, frame: OpenState | OpenLogs | OpenOutput, scope: anyio.CancelScope
    ) -> None:
        with scope:
            try:
                match frame:
                    case OpenState():
                        await send_state(self._feed, frame, self._send)
                    case OpenLogs():
                        await send_logs(self._coordinator, frame, self._send)
                    case OpenOutput():
                        taken = self._acknowledged[frame.id] = anyio.Semaphore(0)
                        await send_output(self._coordinator, frame, taken.acquire, self._send)
            except (ValueError, RecursionError) as error:
                problem = f"a message cannot be sent to the page as JSON ({error})"
                await self._end(frame.id, problem)
            finally:
                self._streams.pop(frame.id, None)
                self._acknowledged.pop(frame.id, None)

    async def _end(self, number: int, problem: str) -> None:
        await self._send({"id": number, "ended": True, "problems": [problem]})

    async def _send(self, frame: dict[str, Any]) -> None:
        """Send a frame. Raises PageClosed.

        Raises ValueError or RecursionError for a frame that JSON cannot contain.
        """
        text = json.dumps(frame, separators=(",", ":"), allow_nan=False)
        async with self._writing:
            try:
                with anyio.fail_after(WRITE_SECONDS):
                    await self._socket.send_text(text)
            except (WebSocketDisconnect, RuntimeError, TimeoutError) as error:
                raise PageClosed from error

    async def _refuse(self, reason: str) -> NoReturn:
        with suppress(RuntimeError), anyio.move_on_after(WRITE_SECONDS):
            await self._socket.close(PROTOCOL_ERROR, reason)
        raise PageClosed

    async def _receive(self) -> PageFrame:
        try:
            text = await self._socket.receive_text()
        except (WebSocketDisconnect, KeyError, RuntimeError) as error:
            raise PageClosed from error  # the page was closed, or sent a binary frame
        try:
            return PAGE_FRAMES.validate_json(text)
        except ValidationError:
            await self._refuse("unknown frame")


class _Frame(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int


class OpenState(_Frame):
    """Send the state and its changes, with the details of one dataflow."""

    open: Literal["state"]
    dataflow: DataflowUuid | None = None


class OpenLogs(_Frame):
    """Send log lines: the last ones and all that follow."""

    open: Literal["logs"]
    dataflow: DataflowUuid
    node: str | None = None
    level: LogLevel = "stdout"
    tail: Annotated[int, Field(ge=0, le=MAX_TAIL)] = 1000


class OpenOutput(_Frame):
    """Send messages of an output, one frame after each acknowledgement."""

    open: Literal["output"]
    dataflow: DataflowUuid
    topic: str
    rate: Annotated[float, Field(gt=0, le=60)] = 5.0


class Acknowledge(_Frame):
    """Request the next frame of an output."""

    open: Literal["acknowledge"]


class Close(_Frame):
    open: Literal["close"]


PageFrame = Annotated[
    OpenState | OpenLogs | OpenOutput | Acknowledge | Close, Field(discriminator="open")
]
PAGE_FRAMES: Final[TypeAdapter[PageFrame]] = TypeAdapter(PageFrame)


async def send_state(feed: Feed, wanted: OpenState, send: Send) -> None:
    """Send the whole state, then differences; each with the time by the clock of the state."""
    last: State | None = None
    async with aclosing(feed.versions()) as versions:
        async for version in versions:
            now = version.scoped(wanted.dataflow)
            frame: dict[str, Any] = {"id": wanted.id}
            if version.ahead is not None:
                frame["time"] = round(version.ahead + anyio.current_time(), 3)
            if last is None:
                await send({**frame, "state": now})
            elif patch := difference(last, now):
                await send({**frame, "patch": patch})
            last = now


async def send_logs(coordinator: CoordinatorConnection, wanted: OpenLogs, send: Send) -> None:
    """Send lines until the dataflow ends; continue after them when a connection was lost."""
    positions: dict[str, LogPosition] = {}

    async def read() -> bool:
        request = ReadLogs(
            dataflow=wanted.dataflow,
            nodes=() if wanted.node is None else (wanted.node,),
            filter=LogFilter(level=wanted.level, tail=None if positions else wanted.tail),
            follow=True,
            after=positions,
            resumes=True,
        )
        async with coordinator.open(request) as replies:
            problems = await _send_lines(replies, positions, wanted.id, send)
        if await _has_ended(coordinator, wanted.dataflow):
            await send({"id": wanted.id, "ended": True, "problems": problems})
            return True
        # A machine was lost or has returned.
        await send({"id": wanted.id, "lost": "; ".join(problems)})
        return False

    await _until_ended(wanted.id, read, send)


async def _until_ended(number: int, read: Callable[[], Awaitable[bool]], send: Send) -> None:
    """Call ``read`` until it returns that the stream has ended, and after lost connections."""
    lost_at = -STORE_LOST
    problem = ""
    while True:
        try:
            if await read():
                return
        except RequestFailed as error:
            is_early = anyio.current_time() < lost_at + STORE_LOST
            if error.code != "not_found" or not is_early:
                await send({"id": number, "ended": True, "problems": [str(error)]})
                return
        except DoraError as error:
            lost_at = anyio.current_time()
            if str(error) != problem:
                problem = str(error)
                await send({"id": number, "lost": problem})
        await anyio.sleep(RETRY_PAUSE)


async def _send_lines(
    replies: ReplyStream, positions: dict[str, LogPosition], number: int, send: Send
) -> list[str]:
    """Send lines and note their positions; return the problems at the end."""
    async for reply in replies:
        match reply:
            case LogLines() as read:
                entries = parsed(read.lines)
                if entries:
                    await send({"id": number, "lines": entries})
                positions.update(read.positions)
            case LogsEnd(problems=problems):
                return list(problems)
    return []


async def _has_ended(coordinator: CoordinatorConnection, dataflow: str) -> bool:
    rows = (await coordinator.request(ListDataflows())).dataflows
    return all(row.ended_ago is not None for row in rows if row.uuid == dataflow)


def parsed(lines: tuple[str, ...]) -> list[Any]:
    """Return log lines as objects, without malformed ones."""
    return [
        entry if len(line) <= LONG_LINE else _cut(entry)
        for line, entry in _objects(lines)
        if all(isinstance(entry.get(key), str) for key in _TEXTS)
    ]


def _objects(texts: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the texts that are JSON objects, each with its object."""
    for text in texts:
        try:
            value = _loaded(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield text, value


def _loaded(text: str) -> Any:
    """Parse JSON; NaN and infinity, which browsers do not parse, become texts."""
    return json.loads(text, parse_constant=str, parse_float=_finite)


def _finite(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _cut(entry: dict[str, Any]) -> dict[str, Any]:
    """Shorten the message of a line, and remove the fields of its node."""
    message = entry["msg"]
    if len(message) > LONG_LINE:
        message = f"{message[:LONG_LINE]}… (cut: {len(message)} characters)"
    short = {
        key: value[:LONG_LINE] if isinstance(value, str) else value
        for key, value in entry.items()
        if key in _KEPT_FIELDS and isinstance(value, str | int | float)
    }
    return {**short, "ts": entry["ts"][:64], "msg": message}


async def send_output(
    coordinator: CoordinatorConnection,
    wanted: OpenOutput,
    acknowledged: Callable[[], Awaitable[None]],
    send: Send,
) -> None:
    """Send messages; the page acknowledges each frame when it has drawn it."""
    request = WatchTopics(
        dataflow=wanted.dataflow,
        topics=(wanted.topic,),
        sample_bytes=SAMPLE_BYTES,
        max_rate=wanted.rate,
        picture_bytes=PICTURE_BYTES,
        whole_picture_bytes=WHOLE_PICTURE_BYTES,
    )

    async def read() -> bool:
        async with coordinator.open(request) as replies:
            problems = await _send_messages(replies, wanted.id, acknowledged, send)
        await send({"id": wanted.id, "ended": True, "problems": problems})
        return True

    await _until_ended(wanted.id, read, send)


class LongMessages:
    """Joins the pieces of messages that are longer than an update of a stream."""

    def __init__(self) -> None:
        self._stream: int | None = None
        self._pieces: list[str] = []

    def take(self, stream: int, update: TopicUpdate) -> tuple[str, ...]:
        """Return the complete messages; a first piece begins another stream."""
        if not update.piece:
            return update.samples
        if stream != self._stream:
            self._stream = stream
            self._pieces.clear()
        self._pieces.append(update.piece)
        if sum(map(len, self._pieces)) > MAX_LONG:
            raise RequestFailed("a message is longer than the machine may send", "failed")
        if update.more:
            return ()
        whole = "".join(self._pieces)
        self._pieces.clear()
        return (whole,)


async def _send_messages(
    replies: ReplyStream, number: int, acknowledged: Callable[[], Awaitable[None]], send: Send
) -> tuple[str, ...]:
    """Return the problems at the end."""
    long = LongMessages()
    dropped = 0
    async for reply in replies:
        match reply:
            case WatchedTopics(update=update, stream=stream):
                texts = long.take(stream, update)
                dropped += sum(update.dropped.values())
                if not update.more or update.notes:
                    samples = [sample for _, sample in _objects(texts)]
                    dropped += len(texts) - len(samples)
                    frame = {"samples": samples, "dropped": dropped, "notes": update.notes}
                    dropped = 0
                    await send({"id": number, **frame})
                    await acknowledged()
                await replies.acknowledge(stream)
            case TopicsEnd(problems=problems):
                return problems
    return ()
