"""Environments of nodes whose code was sent: created once, without uv by venv and pip."""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio
import pytest

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedNode
from dora_config.protocol.builds import NodeBuildEvent
from dora_config.protocol.code import CodeFile, CodeSet
from dora_daemon.build import builder
from dora_daemon.build.builder import BuildOptions, prepare
from dora_daemon.build.own_environment import build_key, is_built, mark_built
from dora_daemon.build.python_env import environment_dir


def node(*build: str) -> ResolvedNode:
    return ResolvedNode(id="n", path="n.py", build=build)


def code(**contents: str) -> CodeSet:
    return CodeSet(
        files=tuple(
            CodeFile(path=name.replace("_", "."), sha256=digit * 64, size=1)
            for name, digit in contents.items()
        )
    )


def test_an_installer_depends_on_the_files_it_names() -> None:
    lines = node("pip install -r requirements.txt")
    key = build_key(lines, code(requirements_txt="a", n_py="b"))
    assert key == build_key(lines, code(requirements_txt="a", n_py="c"))
    assert key != build_key(lines, code(requirements_txt="d", n_py="b"))
    assert key != build_key(node("pip install -r ./requirements.txt"), code(requirements_txt="a"))


@pytest.mark.parametrize("other", ["n.built", "n" * 1000])
def test_markers_differ_from_environments_of_other_nodes(tmp_path: Path, other: str) -> None:
    mark_built(tmp_path, "n", "key")
    environment_dir(tmp_path, other).mkdir()
    mark_built(tmp_path, other, "other key")
    assert is_built(tmp_path, "n", "key")
    assert is_built(tmp_path, other, "other key")


@pytest.mark.parametrize("line", ["make", "pip install ."])
def test_other_lines_depend_on_every_file(line: str) -> None:
    assert build_key(node(line), code(n_py="b")) != build_key(node(line), code(n_py="c"))


@pytest.mark.integration
def test_without_uv_the_environment_is_made_by_venv_and_filled_by_our_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "find_uv", lambda environ: None)
    (tmp_path / "n.py").touch()
    (tmp_path / "project").mkdir()
    lines = node("pip list", "sh -c 'echo ran >> ran'")
    events: list[NodeBuildEvent] = []

    def build(key: str) -> Path:
        options = BuildOptions(build_keys={"n": key})
        (built,) = anyio.run(
            lambda: prepare(
                ResolvedDataflow(nodes=(lines,)), tmp_path, options=options, on_event=events.append
            )
        )
        assert built.place.python is not None
        return Path(built.place.python)

    python = build("first")
    assert python == tmp_path / ".dora" / "python-envs" / "n" / "bin" / "python"
    checked = subprocess.run(
        [python, "-c", "import pyarrow, sys; print(sys.prefix)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert checked.stdout.strip() == str(python.parent.parent)
    build("first")
    assert (tmp_path / "ran").read_text() == "ran\n"
    build("second")
    assert (tmp_path / "ran").read_text() == "ran\nran\n"
    assert any(event.what == "skipped" for event in events)
