"""CodeDelivery of sent code, without a coordinator."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import anyio
import pytest
from support.fleets.stored_files import add
from support.simulation.fleets import dataflow

from dora_config.access import AccessError, Endpoint
from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.file_store import FileStore
from dora_config.protocol.code import CodeFile, CodeSet
from dora_config.protocol.dataflow import DataflowSpec
from dora_daemon.code.delivery import CodeDelivery, CodeNotDelivered


def spec(store: FileStore, content: bytes) -> DataflowSpec:
    """A node with a file of this content, which is in the store."""
    name = add(store, content)
    code = CodeSet(files=(CodeFile(path="node.py", sha256=name, size=len(content)),))
    node = ResolvedNode(id="n", path="node.py", deploy=ResolvedDeploy(distribute="http"))
    resolved = ResolvedDataflow(nodes=(node,))
    digest = add(store, code.text())
    return dataflow().model_copy(update={"resolved": resolved, "code": {"n": digest}})


def spoilt() -> Endpoint:
    raise AccessError("token: other users can read it; run `chmod 600 token`")


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


def test_code_that_is_here_already_needs_no_token(tmp_path: Path, store: FileStore) -> None:
    delivery = CodeDelivery(store, spoilt)
    delivered = anyio.run(delivery.deliver, spec(store, b"pass"), tmp_path / "work")
    assert list(delivered) == ["n"]
    assert (tmp_path / "work/node.py").read_bytes() == b"pass"


def test_unusable_token_is_a_reason_not_to_deliver(tmp_path: Path, store: FileStore) -> None:
    wanted = spec(store, b"pass")
    delivery = CodeDelivery(FileStore(tmp_path / "empty"), spoilt)
    with pytest.raises(CodeNotDelivered, match=r'code of node "n" .* run `chmod 600 token`'):
        anyio.run(delivery.deliver, wanted, tmp_path / "work")


def test_store_that_cannot_be_tidied_does_not_prevent_a_start(
    tmp_path: Path,
    store: FileStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", "old")

    monkeypatch.setattr(FileStore, "collect", fail)
    with caplog.at_level(logging.WARNING):
        anyio.run(CodeDelivery(store, spoilt).deliver, spec(store, b"pass"), tmp_path / "work")
    assert (tmp_path / "work/node.py").exists()
    assert "cannot remove unused code" in caplog.text


def test_cancelled_delivery_does_not_replace_a_later_one(
    tmp_path: Path, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is cancelled after its files were fetched, the second waits for its thread."""
    first, second = spec(store, b"first"), spec(store, b"second")
    reached, go_on = threading.Event(), threading.Event()
    use = FileStore.use

    def slow_use(self: FileStore, digest: str) -> Path | None:
        if digest == first.code["n"]:
            reached.set()
            assert go_on.wait(30)
        return use(self, digest)

    monkeypatch.setattr(FileStore, "use", slow_use)
    delivery = CodeDelivery(store, spoilt)
    work = tmp_path / "work"
    written: list[bytes] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(delivery.deliver, first, work)
            await anyio.to_thread.run_sync(reached.wait)
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(delivery.deliver, second, work)
            await anyio.wait_all_tasks_blocked()
            go_on.set()
        written.append((work / "node.py").read_bytes())

    anyio.run(main)
    assert written == [b"second"]
