"""Reload of nodes whose files change."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from dora_cli.live.watching import NodeWatcher
from dora_config.dataflow.loader import load_dataflow
from dora_config.dataflow.resolved import ResolvedNode


def node_in(folder: Path) -> ResolvedNode:
    (folder / "talker.py").write_text("first = 1\n")
    (folder / "dataflow.yml").write_text("nodes:\n- {id: talker, path: talker.py}\n")
    return load_dataflow(folder / "dataflow.yml").resolved.nodes[0]


def test_a_file_that_is_written_all_the_time_does_not_delay_reloads(tmp_path: Path) -> None:
    anyio.run(reload_beside_a_growing_log, tmp_path)


async def reload_beside_a_growing_log(tmp_path: Path) -> None:
    reloaded = anyio.Event()

    async def reload(node: str) -> str | None:
        assert node == "talker"
        reloaded.set()
        return None

    async def write_log() -> None:
        with (tmp_path / "run.log").open("w") as log:
            while True:
                log.write("line\n")
                log.flush()
                await anyio.sleep(0.01)

    watcher = NodeWatcher(tmp_path / "dataflow.yml", {"talker": (node_in(tmp_path), tmp_path)})
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_log)
            tasks.start_soon(watcher.run, reload)
            count = 0
            while not reloaded.is_set():
                count += 1
                (tmp_path / "talker.py").write_text(f"saved = {count}\n")
                with anyio.move_on_after(5):
                    await reloaded.wait()
            tasks.cancel_scope.cancel()


def test_nodes_that_are_added_later_are_watched(tmp_path: Path) -> None:
    anyio.run(reload_an_added_node, tmp_path)


async def reload_an_added_node(tmp_path: Path) -> None:
    reloaded: list[str] = []
    done = anyio.Event()

    async def reload(node: str) -> str | None:
        reloaded.append(node)
        done.set()
        return None

    talker = (node_in(tmp_path), tmp_path)
    (tmp_path / "second.py").write_text("first = 1\n")
    second = (talker[0].model_copy(update={"id": "second", "path": "second.py"}), tmp_path)
    watcher = NodeWatcher(tmp_path / "dataflow.yml", {"talker": talker})
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watcher.run, reload)
            await watcher.set_nodes({"talker": talker, "second": second})
            await watcher.set_nodes({"second": second})  # talker was removed
            (tmp_path / "talker.py").write_text("saved = 1\n")
            (tmp_path / "second.py").write_text("saved = 1\n")
            await done.wait()
            tasks.cancel_scope.cancel()
    assert reloaded == ["second"]


def test_a_file_that_is_saved_before_the_watch_begins_is_reloaded(tmp_path: Path) -> None:
    anyio.run(reload_what_was_saved_early, tmp_path)


async def reload_what_was_saved_early(tmp_path: Path) -> None:
    reloaded = anyio.Event()

    async def reload(node: str) -> str | None:
        assert node == "talker"
        reloaded.set()
        return None

    watcher = NodeWatcher(tmp_path / "dataflow.yml", {"talker": (node_in(tmp_path), tmp_path)})
    (tmp_path / "talker.py").write_text("saved = 1\n")  # while the dataflow starts
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watcher.run, reload)
            await reloaded.wait()
            tasks.cancel_scope.cancel()


def test_nodes_that_cannot_be_watched_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talker = (node_in(tmp_path), tmp_path)
    sleeper = (talker[0].model_copy(update={"id": "sleeper", "path": "sleep"}), tmp_path)
    watcher = NodeWatcher(tmp_path / "dataflow.yml", {"talker": talker, "sleeper": sleeper})

    async def run() -> None:
        with anyio.move_on_after(0.1):
            await watcher.run(lambda node: anyio.sleep_forever())

    anyio.run(run)
    shown = capsys.readouterr().err
    assert "watching 1 file of nodes" in shown
    assert 'node "sleeper" is not reloaded on save: `sleep` is neither' in shown
    assert "talker" not in shown
