"""Recordings of LeRobot datasets, checked with datasets that our own export wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from recordings.export.test_lerobot import OPTIONS, dataset, rows
from support.command_line import Dora
from support.dora import run_dora
from support.plugin_wheels import PluginWheels, plugin_wheels
from support.workspace import Workspace

from dora_recordings.arrow_messages import decode
from dora_recordings.conversion import CannotConvert
from dora_recordings.export.dataset_reader import import_dataset
from dora_recordings.export.lerobot import LeRobotOptions, export_lerobot
from dora_recordings.reading import Recording

CAMERA = {"camera/image": "front"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = replace(OPTIONS, images=CAMERA)
    return dataset(tmp_path_factory.mktemp("lerobot") / "dataset", options)


def test_the_frames_come_back(folder: Path, tmp_path: Path) -> None:
    done = import_dataset(folder, tmp_path / "it.mcap")
    assert done.messages == {"episode": 4, "state": 20, "action": 20, "front": 20}
    recording = Recording(tmp_path / "it.mcap")
    (node,) = (recording.facts.dataflow or {})["nodes"]
    assert set(node["outputs"]) == {"episode", "state", "action", "front"}
    options = LeRobotOptions(
        state="lerobot/state",
        action="lerobot/action",
        images={"lerobot/front": "front"},
        episodes="lerobot/episode",
    )
    for every in (None, "lerobot/action"):
        again = tmp_path / f"again-{every is None}"
        export_lerobot(
            recording.messages, recording.facts.dataflow, replace(options, every=every), again
        )
        assert rows(again) == rows(folder)


def test_messages_have_names_sizes_and_tasks(folder: Path, tmp_path: Path) -> None:
    import_dataset(folder, tmp_path / "it.mcap")
    found: dict[str, Any] = {}
    for one in Recording(tmp_path / "it.mcap").messages():
        array, metadata = decode(one.schema, one.data)
        found.setdefault(one.topic, (array, json.loads(metadata or b"{}")))
    assert found["lerobot/episode"][1] == {"task": "place"}
    assert found["lerobot/action"][0].to_pylist() == [3.0, 2.0]
    assert found["lerobot/action"][1] == {"names": ["pan", "lift"]}
    picture, metadata = found["lerobot/front"]
    assert metadata == {"width": 32, "height": 16, "encoding": "jpeg"}
    assert bytes(picture.to_numpy()[:2]) == b"\xff\xd8"


@pytest.mark.integration
def test_nodes_that_are_added_get_what_is_replayed(folder: Path, workspace: Workspace) -> None:
    import_dataset(folder, workspace.path / "it.mcap")
    words = ("it.mcap", "--speed", "10", "--output-yaml", "replay.yml")
    run_dora("replay", *words, cwd=workspace.path).succeeded()
    workspace.node(
        "reader",
        """
        from dora import Node

        actions, pictures = [], 0
        for event in Node():
            if event["type"] == "INPUT" and event["id"] == "action":
                assert event["metadata"]["names"] == ["pan", "lift"]
                actions.append(event["value"].to_pylist())
            elif event["type"] == "INPUT":
                assert event["metadata"]["encoding"] == "jpeg"
                pictures += 1
        print("actions", actions[0], actions[-1], len(actions), pictures)
        """,
    )
    replay = yaml.safe_load((workspace.path / "replay.yml").read_text())
    inputs = {
        name: {"source": f"lerobot/{name}", "queue_size": 100} for name in ("action", "front")
    }
    reader = {"id": "reader", "path": "reader.py", "inputs": inputs}
    path = workspace.dataflow({**replay, "nodes": [*replay["nodes"], reader]})
    done = run_dora("run", path, cwd=workspace.path).succeeded()
    actions = rows(folder)["action"]
    assert f"actions {actions[0]} {actions[-1]} 20 20" in done.stdout


def test_a_dataset_needs_no_format_by_name(
    dora: Dora, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wheels in plugin_wheels(tmp_path, monkeypatch):
        _check_formats(dora, folder, wheels)


def _check_formats(dora: Dora, folder: Path, wheels: PluginWheels) -> None:
    module = "def other(file: str) -> None:\n    print('other reads', file)\n"
    wheels.install(
        "dora-other", {"dora.imports": {"other": "other_format:other"}}, other_format=module
    )
    shown = dora("recording", "import", "-o", "it.mcap", str(folder))
    assert "lerobot/front    20\n" in shown.out
    assert "wrote it.mcap\n" in shown.out
    shown = dora("recording", "import", "--from", "other", str(folder))
    assert "other reads" in shown.out


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        (None, "is not a LeRobot dataset: meta/info.json: .*No such file"),
        ({"fps": 30}, "is not a LeRobot dataset: meta/info.json: 'features'"),
        ({"fps": 30, "features": {}, "codebase_version": "v2.1"}, "version v2.1; expected v3"),
        ({"fps": 30, "features": {}, "codebase_version": "v3.0"}, "no file of episodes"),
    ],
)
def test_what_is_not_a_dataset(tmp_path: Path, info: object, problem: str) -> None:
    if info is not None:
        (tmp_path / "meta").mkdir()
        (tmp_path / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(CannotConvert, match=problem):
        import_dataset(tmp_path, tmp_path / "it.mcap")
    assert not (tmp_path / "it.mcap").exists()


def test_a_video_that_is_cut_is_named(folder: Path, tmp_path: Path) -> None:
    (video,) = folder.glob("videos/**/*.mp4")
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 4])
    try:
        with pytest.raises(CannotConvert, match=r"file-000\.mp4"):
            import_dataset(folder, tmp_path / "it.mcap")
    finally:
        video.write_bytes(whole)
