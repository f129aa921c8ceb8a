"""Service with files that cannot be written or read, with defects, or without output streams."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import anyio
import pytest
from support.dora import DORA
from support.fleets.coordinator import free_port
from support.simulation.fleets import dataflow
from support.waiting import PATIENCE, wait_until, wait_until_async

from dora_config.protocol.builds import BuildDataflow, BuildEvents, BuildPart
from dora_config.protocol.control import (
    Answer,
    ControlRequest,
    DataflowList,
    DescribeDataflow,
    Destroy,
    Failure,
    ForgetEnded,
    GetSnapshot,
    ListDataflows,
    RotateToken,
    StartDataflow,
    StopDataflow,
    WatchTopics,
)
from dora_config.protocol.daemon import (
    TO_DAEMON,
    DaemonAnswered,
    DaemonCall,
    PartChanged,
    PartReport,
    Register,
)
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.snapshot import MachineSample, Snapshot
from dora_coordinator.coordinator import CoordinatorState
from dora_coordinator.io import service as service_module
from dora_coordinator.io.authority import Authority
from dora_coordinator.io.connections import DaemonConnection, Renewal
from dora_coordinator.io.service import Service
from dora_coordinator.io.store import NotWritten, SqliteStore, StoreError
from dora_coordinator.io.token_file import TokenFile, given_token
from dora_coordinator.queries import snapshots
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import Change, Command
from dora_coordinator.state.events import ClientRequested, Event
from dora_coordinator.state.identities import Proof
from dora_testing.cluster.fleet import COORDINATOR, DAEMON


class FillingStore(SqliteStore):
    full = False

    def apply(self, changes: Sequence[Change]) -> None:
        if self.full:
            raise NotWritten("the disk is full")
        super().apply(changes)


class Remote:
    """The other end of a connection; collects what it receives."""

    def __init__(self, service: Service, tasks: anyio.abc.TaskGroup) -> None:
        self.service = service
        self.connection: DaemonConnection = service.daemons.connect("10.0.0.2:1", Renewal.LATER)
        self.received: list[str] = []
        self.gone = False
        self._tasks = tasks
        tasks.start_soon(self._read)

    async def _read(self) -> None:
        async def note(text: str) -> None:
            self.received.append(text)

        await self.connection.write(note)
        self.service.daemons.disconnect(self.connection)
        self.gone = True

    def register(self, *parts: PartReport) -> None:
        register = Register(
            party=DAEMON,
            instance="i",
            incarnation="1",
            machine_id="robot",
            parts=parts,
            public_key="",
        )
        self.service.daemons.on_register(self.connection, register, Proof("a1"))

    def request(self, request: ControlRequest) -> None:
        self._tasks.start_soon(
            self.service.request, request, RequestClient(1, self.connection.send)
        )

    async def receives(self, text: str) -> None:
        await wait_until_async(lambda: any(text in one for one in self.received), what=text)


async def register(peer: Callable[[], Remote], *parts: PartReport) -> Remote:
    """Connect a daemon until it is admitted."""
    while True:
        daemon = peer()
        daemon.register(*parts)
        await wait_until_async(lambda: daemon.received, what="an answer")  # noqa: B023
        if "registration_refused" not in daemon.received[0]:
            return daemon


def play(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    story: Callable[[FillingStore, Callable[[], Remote]], object],
    *,
    tokens: TokenFile | None = None,
) -> None:
    monkeypatch.setattr(service_module, "RETRY", 0.2)
    store = FillingStore(tmp_path / "store")

    async def run() -> None:
        authority = Authority(tmp_path / "authority")
        service = Service(Settings(), COORDINATOR, store, authority, tokens)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.run)
            with anyio.fail_after(PATIENCE):
                await story(store, lambda: Remote(service, tasks))  # type: ignore[misc]
                await service.flush(within=PATIENCE)
            tasks.cancel_scope.cancel()

    anyio.run(run)
    store.close()


def test_starts_are_refused_until_the_store_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = StartDataflow(spec=dataflow(camera="robot"))

    async def story(store: FillingStore, peer: Callable[[], Remote]) -> None:
        daemon, client = await register(peer), peer()
        store.full = True
        client.request(start)
        await client.receives("the disk is full")
        await wait_until_async(lambda: daemon.gone and client.gone)
        assert not any("prepare_part" in text for text in daemon.received)
        store.full = False
        again, client = await register(peer), peer()
        client.request(start)
        await again.receives("prepare_part")

    play(tmp_path, monkeypatch, story)


def test_queries_are_answered_and_ends_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(uuid: str) -> PartReport:
        return PartReport(dataflow_id=uuid, attempt=1, phase="ended")

    async def story(store: FillingStore, peer: Callable[[], Remote]) -> None:
        daemon, client = await register(peer), peer()
        client.request(StartDataflow(spec=dataflow(camera="robot")))
        await daemon.receives("prepare_part")
        ((record, _),) = store.load().stored
        uuid = record.dataflow_id
        for phase in ("prepared", "running"):
            report = PartReport.model_validate({"dataflow_id": uuid, "attempt": 1, "phase": phase})
            daemon.service.daemons.on_message(daemon.connection, PartChanged(report=report))
        await wait_until_async(lambda: store.load().stored[0][0].phase == "running")
        store.full = True
        daemon.service.daemons.on_message(daemon.connection, PartChanged(report=ended(uuid)))
        await wait_until_async(lambda: daemon.gone)
        assert not any("forget_part" in text for text in daemon.received)
        late, other = peer(), peer()
        late.register(ended(uuid))
        other.request(StopDataflow(dataflow=uuid))
        await late.receives("the disk is full")
        await other.receives("the disk is full")
        answer = await other.service.request(ListDataflows())
        assert isinstance(answer, Answer)
        assert isinstance(answer.answer, DataflowList)
        assert [row.uuid for row in answer.answer.dataflows] == [uuid]
        assert store.load().stored[0][0].phase == "running"
        store.full = False
        again = await register(peer, ended(uuid))
        await again.receives("forget_part")
        assert store.load().stored[0][0].phase == "finished"

    play(tmp_path, monkeypatch, story)


def test_requests_without_a_connection_are_answered_or_lost_with_the_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(store: FillingStore, peer: Callable[[], Remote]) -> None:
        daemon = await register(peer)
        service = daemon.service
        assert isinstance(await service.request(ListDataflows()), Answer)
        with anyio.CancelScope() as gone:

            async def leave() -> None:
                await daemon.receives("prepare_part")
                gone.cancel()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(leave)
                await service.request(StartDataflow(spec=dataflow(camera="robot")))
        store.full = True
        failure = await service.request(StartDataflow(spec=dataflow(camera="robot")))
        assert isinstance(failure, Failure)
        assert failure.message == "the disk is full"
        assert isinstance(await service.request(DescribeDataflow()), Answer)
        store.full = False
        again = await register(peer)
        answers: list[object] = []

        async def start_again() -> None:
            answers.append(await service.request(StartDataflow(spec=dataflow(camera="robot"))))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start_again)
            await again.receives("prepare_part")
            await service.flush(within=0.1)
        assert answers == [None]

    play(tmp_path, monkeypatch, story)


def test_a_watch_that_waits_for_its_part_ends_with_the_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spec = dataflow(camera="robot")
    (node,) = spec.resolved.nodes
    nodes = (node.model_copy(update={"outputs": ("image",)}),)
    resolved = spec.resolved.model_copy(update={"nodes": nodes, "debug_inspection": True})

    async def story(store: FillingStore, peer: Callable[[], Remote]) -> None:
        daemon, client = await register(peer), peer()
        client.request(StartDataflow(spec=spec.model_copy(update={"resolved": resolved})))
        await daemon.receives("prepare_part")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(daemon.service.request, WatchTopics())
            await anyio.wait_all_tasks_blocked()
            await daemon.service.flush(within=PATIENCE)

    play(tmp_path, monkeypatch, story)
    assert "internal error" not in caplog.text


def built_dataflow() -> DataflowSpec:
    spec = dataflow(camera="robot")
    (node,) = spec.resolved.nodes
    return spec.with_nodes((node.model_copy(update={"build": ("make",)}),))


def test_progress_that_no_client_reads_does_not_stop_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(store: FillingStore, peer: Callable[[], Remote]) -> None:
        daemon = await register(peer)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(daemon.service.request, BuildDataflow(spec=built_dataflow()))
            await daemon.receives("build_part")
            messages = [TO_DAEMON.decode(text) for text in daemon.received]
            (number,) = (one.build_id for one in messages if isinstance(one, BuildPart))
            daemon.service.daemons.on_message(daemon.connection, BuildEvents(build_id=number))
            await daemon.receives("build_events_ack")
            tasks.cancel_scope.cancel()

    play(tmp_path, monkeypatch, story)


def test_a_replaced_connection_of_a_daemon_ends_what_it_was_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(store: FillingStore, peer: Callable[[], Remote]) -> None:
        daemon, client = await register(peer), peer()
        client.request(BuildDataflow(spec=built_dataflow()))
        await daemon.receives("build_part")
        closed = daemon.service.daemons._open.pop(daemon.connection.number)
        del daemon.service.daemons.admitted["robot"]  # its end is noticed, but not handled yet
        successor = peer()
        successor.register()
        await successor.receives("registered")
        await client.receives("the connection was lost during the build")
        assert not successor.gone
        daemon.service.daemons._open[closed.number] = closed

    play(tmp_path, monkeypatch, story)


def test_destroy_continues_without_its_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(store: FillingStore, peer: Callable[[], Remote]) -> None:
        service, client = peer().service, RequestClient()
        post = service._requests._post

        def cancel_and_post(event: Event) -> None:
            client.scope.cancel()
            post(event)

        monkeypatch.setattr(service._requests, "_post", cancel_and_post)
        await service.request(Destroy(), client)
        await wait_until_async(lambda: service._ending, what="the end of the coordinator")

    play(tmp_path, monkeypatch, story)


def test_snapshots_are_answered_while_the_store_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "REUSED_SECONDS", 0.01)

    async def story(store: FillingStore, peer: Callable[[], Remote]) -> None:
        daemon = await register(peer)
        service = daemon.service
        store.full = True
        await service.request(StartDataflow(spec=dataflow(camera="robot")))
        times: set[float] = set()
        while len(times) < 2:  # an answer is reused until its timer has fired
            answer = await service.request(GetSnapshot())
            assert isinstance(answer, Answer)
            assert isinstance(answer.answer, Snapshot)
            times.add(answer.answer.time)
        store.full = False
        await register(peer)

    play(tmp_path, monkeypatch, story)


def test_a_defect_in_tracing_loses_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(spans: object) -> None:
        raise RuntimeError("a defect")

    async def story(store: FillingStore, peer: Callable[[], Remote]) -> None:
        daemon, client = await register(peer), peer()
        client.service.spans.handle = fail
        client.request(StartDataflow(spec=dataflow(camera="robot")))
        await daemon.receives("prepare_part")

    play(tmp_path, monkeypatch, story)


def test_a_defect_in_an_event_fails_its_request_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handle = CoordinatorState.handle

    def fail_starts(state: CoordinatorState, event: Event, now: float) -> list[Command]:
        if isinstance(event, ClientRequested) and isinstance(event.request, StartDataflow):
            raise RuntimeError("a defect")
        return handle(state, event, now)

    async def story(store: FillingStore, peer: Callable[[], Remote]) -> None:
        daemon, client = await register(peer), peer()
        client.request(StartDataflow(spec=dataflow(camera="robot")))
        await client.receives("internal error of the coordinator; see its log")
        client.request(ForgetEnded())
        await client.receives('"kind":"dataflows"')
        assert not daemon.gone

    monkeypatch.setattr(CoordinatorState, "handle", fail_starts)
    play(tmp_path, monkeypatch, story)
    assert "RuntimeError: a defect" in caplog.text


def test_a_defect_in_a_query_fails_its_request_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assemble = snapshots.Snapshots._assemble
    defects = [RuntimeError("a defect")]

    def fail_once(*arguments: Any) -> Snapshot:
        if defects:
            raise defects.pop()
        return assemble(*arguments)

    async def answer_samples(daemon: Remote) -> None:
        """Answer as a daemon does, until cancelled."""
        answered = 0
        while True:
            await wait_until_async(lambda: len(daemon.received) > answered)  # noqa: B023
            message = TO_DAEMON.decode(daemon.received[answered])
            answered += 1
            if isinstance(message, DaemonCall):
                sample = DaemonAnswered(call=message.call, reply=MachineSample())
                daemon.service.daemons.on_message(daemon.connection, sample)

    async def story(store: FillingStore, peer: Callable[[], Remote]) -> None:
        daemon = await register(peer)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer_samples, daemon)
            failure = await daemon.service.request(GetSnapshot())
            assert isinstance(failure, Failure)
            assert failure.message == "internal error of the coordinator; see its log"
            assert isinstance(await daemon.service.request(GetSnapshot()), Answer)
            tasks.cancel_scope.cancel()

    monkeypatch.setattr(snapshots.Snapshots, "_assemble", fail_once)
    play(tmp_path, monkeypatch, story)
    assert "RuntimeError: a defect" in caplog.text


@pytest.mark.usefixtures("home")
def test_a_token_that_cannot_be_stored_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority")
    given, path = given_token(authority), tmp_path / "tokens.json"
    tokens = TokenFile(given, authority, path, ["127.0.0.1"], 6013)
    path.mkdir()  # no file can replace it

    async def story(store: FillingStore, peer: Callable[[], Remote]) -> None:
        daemon, client = await register(peer), peer()
        before = len(daemon.received)
        client.request(RotateToken(grace=60.0))
        await client.receives(f"{path}: Is a directory; the token was not changed")
        assert len(daemon.received) == before

    play(tmp_path, monkeypatch, story, tokens=tokens)
    assert str(tokens.current) == given


def test_a_store_that_cannot_be_read_ends_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path / "store")
    store.close()
    service = Service(Settings(), COORDINATOR, store, Authority(tmp_path / "authority"))
    with pytest.raises(StoreError, match="cannot be read"):
        anyio.run(service.run)


@pytest.mark.integration
@pytest.mark.parametrize("streams", [">/dev/full 2>/dev/full", ">&- 2>&- <&-"])
def test_the_coordinator_runs_without_output_streams(
    streams: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it hides what cannot be flushed
    port = free_port()
    words = [str(DORA), "coordinator", "--port", str(port), "--store", "memory"]
    process = subprocess.Popen(["sh", "-c", f'exec "$@" {streams}', "sh", *words])
    try:

        def answers() -> bool:
            assert process.poll() is None
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
                return bool(reply.status == 200)
            return False

        wait_until(answers, what="the coordinator to answer")
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
